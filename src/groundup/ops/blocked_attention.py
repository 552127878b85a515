"""Softmax attention on a processor: a block of queries at a time, as batched products of matrices.

    W = softmax(scale Q K^T);   out = W V
    dV = W^T dOut;   dS = W * (dOut V^T - rowsum(W * dOut V^T));   dQ = scale dS K;   dK = scale dS^T Q

A block of queries reads the keys from the first to the last that any of them sees, so what a causal mask or a window
hides costs next to nothing, and only one block's weights are held: the idea of Dao et al. 2022 (FlashAttention,
arXiv:2205.14135) with the library's own products as the inner loop. Weights over short texts are kept for the
backward, those over long texts are made again. Letters: B rows, T queries, S keys, H heads, G key/value heads (H a
multiple of G), K head width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from groundup.devices import kind_of
from groundup.inside import INSIDES

SHORT = 512  # keys up to which weights are kept for the backward: there they are fewer than an MLP's activations
SHORT_BLOCK, LONG_BLOCK = 128, 256  # queries: enough for fast products, few enough to skip what a mask hides


def is_faster(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Returns whether `attend` is faster here than PyTorch's fused kernel.

    Forward and backward, two Zen 5 cores, torch 2.13, heads of width 64, milliseconds there and here
    (bench/attention.py): bfloat16, 16 rows x 6 heads x 256 tokens 52 and 27, 8 x 8 x 512 110 and 50, 1 x 8 x 2048 113
    and 94, 1 x 8 x 4096 370 and 290; float32, 8 x 8 x 512 120 and 95, but 1 x 8 x 2048 157 and 202.
    """
    narrow = q.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
    return kind_of(q) == "cpu" and (narrow or k.shape[2] <= SHORT) and k.shape == v.shape


def attend(q: Tensor, k: Tensor, v: Tensor, *, allowed: Tensor | None, scale: float) -> Tensor:
    """Returns (B, H, T, K) as `groundup.ops.attention.reference` does, for tensors on a processor."""
    graded = torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v))
    return _attention(q, k, v, allowed, scale, graded and k.shape[2] <= SHORT)[0]


def _by_block(
    q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, scale: float, keep: bool
) -> tuple[Tensor, Tensor]:
    """Returns the outputs, and the weights of all blocks one after the other where they are kept."""
    out, kept = _empty(q, k, v, allowed, scale, keep)
    queries, outs, k, v = _by_head(q * scale, k), _by_head(out, k), k.flatten(0, 1), v.flatten(0, 1)
    used = 0
    for block, seen in _blocks(q.shape[2], k.shape[1], allowed):
        scores = _rows(queries, block) @ k[:, seen].mT
        slot = kept[used : used + scores.numel()].view_as(scores) if keep else None
        weights = torch.softmax(_hide(scores, block, seen, allowed, like=queries), -1, out=slot)
        outs[:, :, :, block] = (weights @ v[:, seen]).view_as(outs[:, :, :, block])
        used += scores.numel()
    return out, kept


def _backward_by_block(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, kept: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradients of queries, keys and values."""
    grad_q, grad_k, grad_v = _empty_gradients(grad, q, k, v, allowed, kept, scale)
    queries, grads, grad_queries = (_by_head(t, k) for t in (q * scale, grad, grad_q))
    shape, k, v = k.shape, k.flatten(0, 1), v.flatten(0, 1)
    wide = torch.promote_types(k.dtype, torch.float32)  # for sums over all blocks
    sum_k, sum_v = torch.zeros_like(k, dtype=wide), torch.zeros_like(v, dtype=wide)
    used = 0
    for block, seen in _blocks(q.shape[2], k.shape[1], allowed):
        asked, grad_out = _rows(queries, block), _rows(grads, block)
        if kept.numel():
            size = (*asked.shape[:2], seen.stop - seen.start)
            weights = kept[used : used + math.prod(size)].view(size)
            used += weights.numel()
        else:
            weights = _hide(asked @ k[:, seen].mT, block, seen, allowed, like=queries).softmax(-1)
        sum_v[:, seen] += weights.mT @ grad_out
        grad_scores = torch.ops.aten._softmax_backward_data(grad_out @ v[:, seen].mT, weights, -1, weights.dtype)
        sum_k[:, seen] += grad_scores.mT @ asked
        part = (grad_scores @ k[:, seen]).mul_(scale)
        grad_queries[:, :, :, block] = part.view_as(grad_queries[:, :, :, block])
    grad_k.copy_(sum_k.view(shape))
    grad_v.copy_(sum_v.view(shape))
    return grad_q, grad_k, grad_v


_attention = torch.library.custom_op(
    "groundup::blocked_attention",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor? allowed, float scale, bool keep) -> (Tensor, Tensor)",
)(_by_block)
_attention_backward = torch.library.custom_op(
    "groundup::blocked_attention_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor? allowed, Tensor kept, float scale) "
    "-> (Tensor, Tensor, Tensor)",
)(_backward_by_block)
INSIDES[torch.ops.groundup.blocked_attention.default] = _by_block
INSIDES[torch.ops.groundup.blocked_attention_backward.default] = _backward_by_block


@_attention.register_fake
def _empty(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, scale: float, keep: bool) -> tuple[Tensor, Tensor]:
    heads, tokens, keys = q.shape[0] * q.shape[1], q.shape[2], k.shape[2]
    causal = sum((block.stop - block.start) * block.stop for block, _ in _blocks(tokens, keys, None))
    return _as_projected(q), q.new_empty(heads * (causal if allowed is None else tokens * keys) if keep else 0)


@_attention_backward.register_fake
def _empty_gradients(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, kept: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return _as_projected(q), _as_projected(k), _as_projected(v)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, allowed, ctx.scale, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, allowed, output[1])


def _backward(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor | None, ...]:
    q, k, v, allowed, kept = ctx.saved_tensors
    return *_attention_backward(grad, q, k, v, allowed, kept, ctx.scale), None, None, None


_attention.register_autograd(_backward, setup_context=_save)
_attention.register_autocast("cpu", torch.bfloat16)


@register_flop_formula(torch.ops.groundup.blocked_attention)
def _flops(q: tuple[int, ...], k: tuple[int, ...], *_: Any, **__: Any) -> int:
    """All T x S scores and sums, whether a mask hides half of them or not, as PyTorch counts its own kernels."""
    return 4 * math.prod(q) * k[2]


@register_flop_formula(torch.ops.groundup.blocked_attention_backward)
def _backward_flops(_: tuple[int, ...], q: tuple[int, ...], k: tuple[int, ...], *__: Any, **___: Any) -> int:
    """Two products for each of the forward's; scores that are made again are work done, not work needed."""
    return 2 * _flops(q, k)


def _blocks(tokens: int, keys: int, allowed: Tensor | None) -> Iterator[tuple[slice, slice]]:
    """Yields blocks of queries, and the keys from the first to the last that one of them sees in any row."""
    size = SHORT_BLOCK if keys <= SHORT else LONG_BLOCK
    for start in range(0, tokens, size):
        block = slice(start, min(start + size, tokens))
        if allowed is None:
            yield block, slice(0, block.stop)
        elif type(allowed) is not Tensor:  # without values, while a plan is made
            yield block, slice(0, block.stop if tokens == keys else keys)
        else:
            seen = allowed[:, 0, block].any(dim=(0, 1)).nonzero()
            yield block, slice(int(seen[0]), int(seen[-1]) + 1) if len(seen) else slice(0, keys)


def _by_head(x: Tensor, keys: Tensor) -> Tensor:
    """Views (B, H, T, K) as (B, G, H/G, T, K)."""
    return x.unflatten(1, (keys.shape[1], -1))


def _rows(x: Tensor, block: slice) -> Tensor:
    """Returns a block of (B, G, H/G, T, K) as (B G, H/G t, K): heads that share keys are rows of one matrix."""
    return x[:, :, :, block].flatten(2, 3).flatten(0, 1)


def _hide(scores: Tensor, block: slice, seen: slice, allowed: Tensor | None, *, like: Tensor) -> Tensor:
    """Makes the scores (B G, H/G t, s) of what a query must not see too small to matter, in place."""
    least = torch.finfo(scores.dtype).min  # not -inf: a query that sees nothing would have no weights that sum to 1
    by_head = scores.view(*like.shape[:3], block.stop - block.start, -1)
    if allowed is None:
        size = block.stop - block.start
        later = torch.ones(size, size, dtype=torch.bool).triu(1)
        by_head[..., block.start :].masked_fill_(later, least)
    else:
        by_head.masked_fill_(~allowed[:, :, None, block, seen], least)
    return scores


def _as_projected(x: Tensor) -> Tensor:
    """Returns room for a tensor (B, H, T, K) laid out as (B, T, H, K), as linear maps make and read it."""
    return torch.empty_like(x.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
