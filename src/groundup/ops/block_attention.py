"""Softmax attention in which every block of queries reads a short list of blocks of keys, and some that all read.

    y_t = sum_s w_ts v_s,   w_t = softmax_s(scale * q_t . k_s)   over the s that are listed for t and that t may see

A key that is listed twice counts twice. The time grows with the length of the lists, not with the square of the text.
Sources: Beltagy et al. 2020 (Longformer, arXiv:2004.05150), section 3; Zaheer et al. 2020 (BigBird, arXiv:2007.14062),
section 2 and appendix D. Letters: N blocks, C their tokens, J blocks of keys in a list, X = J C + G keys in a list.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


def reference(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H S K"],
    v: Float[Tensor, "B H S L"],
    *,
    plan: Int[Tensor, "#H N J"],
    allowed: Bool[Tensor, "#B #H N C X"],
    scale: float,
) -> Float[Tensor, "B H T L"]:
    """Returns the attention of every query over the keys on its block's list: the definition, as one full matrix.

    Args:
        q: queries, T = N C.
        k: keys: those in blocks of C, then G that every block of queries reads.
        v: values.
        plan: which blocks of keys a block of queries reads; what is no block's number stands for none.
        allowed: which query of a block sees which key on its list; each sees one at least, and none of what is none.
        scale: what scores are multiplied by.
    """
    size = allowed.shape[3]
    shared = allowed.shape[4] - plan.shape[2] * size
    place = places(plan, size=size, keys=k.shape[2] - shared)
    every = torch.arange(k.shape[2] - shared, k.shape[2], device=q.device).expand(*place.shape[:2], -1)
    listed = torch.cat([place.clamp(min=0), every], -1)  # (#H, N, X)
    times = torch.zeros(*q.shape[:3], k.shape[2], dtype=q.dtype, device=q.device)
    for n in range(plan.shape[1]):
        seen = allowed[:, :, n].expand(*q.shape[:2], -1, -1)
        index = listed[:, n, None].expand_as(seen)
        times[:, :, n * size : (n + 1) * size].scatter_add_(3, index, seen.to(times.dtype))
    weight = (scale * q @ k.mT + times.log()).softmax(-1)
    return weight @ v


def attend(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H S K"],
    v: Float[Tensor, "B H S L"],
    *,
    plan: Int[Tensor, "#H N J"],
    allowed: Bool[Tensor, "#B #H N C X"],
    scale: float,
    dropout: float = 0.0,
) -> Float[Tensor, "B H T L"]:
    """Returns what `reference` does, a block of queries with the keys on its list; ``dropout`` is of the weights."""
    rows, blocks = q.shape[0], plan.shape[1]
    shared = allowed.shape[4] - plan.shape[2] * allowed.shape[3]
    k, v = (_listed(t, plan, shared=shared, size=allowed.shape[3]) for t in (k, v))  # (B N, H, X, K)
    seen = allowed.expand(rows, -1, -1, -1, -1).transpose(1, 2).flatten(0, 1)
    q = q.unflatten(2, (blocks, -1)).transpose(1, 2).flatten(0, 1)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale, dropout_p=dropout)
    return y.unflatten(0, (rows, blocks)).transpose(1, 2).flatten(2, 3)


def _listed(
    x: Float[Tensor, "B H S K"], plan: Int[Tensor, "#H N J"], *, shared: int, size: int
) -> Float[Tensor, "BN H X K"]:
    """Returns the keys or values on each block's list; where there is none, those of some block."""
    blocks = x[:, :, : x.shape[2] - shared].unflatten(2, (-1, size))
    inside = plan.clamp(0, blocks.shape[2] - 1)
    head = torch.arange(plan.shape[0], device=x.device)[:, None, None]
    listed = (blocks[:, head, inside] if plan.shape[0] > 1 else blocks[:, :, inside[0]]).flatten(3, 4)
    if shared:
        every = x[:, :, None, x.shape[2] - shared :].expand(-1, -1, plan.shape[1], -1, -1)
        listed = torch.cat([listed, every], 3)
    return listed.transpose(1, 2).flatten(0, 1)


def places(plan: Int[Tensor, "#H N J"], *, size: int, keys: int) -> Int[Tensor, "#H N X"]:
    """Returns the place of each key in a block on each list, -1 where there is none.

    Args:
        plan: the lists.
        size: the tokens of a block.
        keys: how many keys are in blocks.
    """
    inside = (plan >= 0) & (plan < keys // size)
    place = plan[..., None] * size + torch.arange(size, device=plan.device)
    return torch.where(inside[..., None], place, -1).flatten(2)


def window(blocks: int, *, before: int, after: int, device: torch.device) -> Int[Tensor, "1 N J"]:
    """Returns the plan in which every block reads itself and so many blocks before and after it."""
    apart = torch.arange(max(-before, 1 - blocks), min(after, blocks - 1) + 1, device=device)
    return (torch.arange(blocks, device=device)[:, None] + apart)[None]


def flops(tokens: int, keys: int, *, key_width: int, value_width: int) -> int:
    """Returns the operations of `attend` for one head of one row: ``tokens`` in whole blocks, ``keys`` on each list."""
    return 2 * tokens * keys * (key_width + value_width)
