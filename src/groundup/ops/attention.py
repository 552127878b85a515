"""Softmax attention over given queries, keys and values.

    y_t = sum_s softmax_s(bend(scale * q_t . k_s) + bias_ts) v_s     over the s that t may see
    bend(x) = x, or cap * tanh(x / cap)

Source: Vaswani et al. 2017 (arXiv:1706.03762), equation 1; shared key/value heads: Ainslie et al. 2023
(arXiv:2305.13245). Letters: B rows, T queries, S keys, H heads, G key/value heads (H a multiple of G), K head width,
L the width of values, usually K.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from groundup.devices import kind_of
from groundup.ops import blocked_attention


def reference(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B G S L"],
    *,
    allowed: Bool[Tensor, "#B 1 T S"] | None,
    causal: bool,
    scale: float,
    bias: Float[Tensor, "#B #H #T S"] | None = None,
    cap: float = math.inf,
    dropout: float = 0.0,
) -> Float[Tensor, "B H T L"]:
    """Returns the attention of every query over the keys that ``allowed`` lets it see: the definition.

    Args:
        q: queries.
        k: keys; each of the G heads serves H / G heads of queries.
        v: values.
        allowed: which query sees which key; None leaves that to ``causal``.
        causal: whether, without ``allowed``, a query sees only the keys up to its own place (T = S).
        scale: what scores are multiplied by, usually K**-0.5.
        bias: what is added to the scores.
        cap: what scores are bent to stay below, before the bias.
        dropout: the chance of each attention weight to be dropped.
    """
    groups = q.shape[1] // k.shape[1]
    k, v = (t.repeat_interleave(groups, 1) for t in (k, v))
    score = q @ k.mT
    score = score.to(torch.promote_types(score.dtype, torch.float32)) * scale
    if cap < math.inf:
        score = cap * (score / cap).tanh()
    weight = (score + as_bias(allowed, bias, causal=causal, like=score, keys=k.shape[2])).softmax(-1)
    weight = F.dropout(weight, dropout).to(v.dtype)
    return weight @ v


def as_bias(
    allowed: Bool[Tensor, "#B 1 T S"] | None,
    bias: Float[Tensor, "#B #H #T S"] | None,
    *,
    causal: bool,
    like: Tensor,
    keys: int,
) -> Float[Tensor, "#B #H T S"]:
    """Returns what is added to scores: the bias, and minus infinity where a query must not see a key.

    Args:
        allowed: as `reference` takes it.
        bias: as `reference` takes it.
        causal: as `reference` takes it.
        like: queries (B, H, T, K), whose number, dtype and device it takes.
        keys: S.
    """
    if allowed is None and causal:
        allowed = torch.ones(1, 1, like.shape[2], keys, dtype=torch.bool, device=like.device).tril()
    if bias is None:
        bias = like.new_zeros(1, 1, 1, keys)
    return bias.to(like.dtype) if allowed is None else bias.to(like.dtype).masked_fill(~allowed, -math.inf)


def attend(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B G S L"],
    *,
    allowed: Bool[Tensor, "#B 1 T S"] | None,
    causal: bool,
    scale: float,
    bias: Float[Tensor, "#B #H #T S"] | None = None,
    cap: float = math.inf,
    dropout: float = 0.0,
) -> Float[Tensor, "B H T L"]:
    """Returns what `reference` does, through PyTorch's kernels (FlashAttention where the device has it).

    On a processor `groundup.ops.blocked_attention` is faster where it says so, but for the one query of a decoding
    step, and unless weights are dropped or scores have a bias. Scores that are bent have no kernel.
    """
    if cap < math.inf:
        return reference(q, k, v, allowed=allowed, causal=causal, scale=scale, bias=bias, cap=cap, dropout=dropout)
    shape, dtype, alone, groups = q.shape, q.dtype, q.shape[2] == 1, q.shape[1] // k.shape[1]
    plain = bias is None and not dropout and (causal or allowed is not None)
    if plain and not alone and blocked_attention.is_faster(q, k, v):
        return blocked_attention.attend(q, k, v, allowed=allowed, scale=scale)
    mask = allowed
    if bias is not None:
        mask = as_bias(allowed, bias, causal=causal, like=q, keys=k.shape[2]).expand(shape[0], -1, shape[2], -1)
    if alone and groups > 1:
        # While decoding, heads that share keys are queries of one head, so that its keys are read once for all.
        q = q.reshape(shape[0], k.shape[1], groups, shape[3])
        if mask is not None and mask.shape[1] > 1:
            mask = mask.reshape(shape[0], k.shape[1], groups, -1)
    elif alone and dtype == torch.bfloat16 and kind_of(q) == "cpu":
        # A processor's bfloat16 products of a single row take 3 to 5 times as long as those in float32.
        q, k, v = q.float(), k.float(), v.float()
        mask = mask.float() if mask is not None and bias is not None else mask
    y = F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=mask,
        is_causal=causal and mask is None and not alone,
        scale=scale,
        dropout_p=dropout,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return y.reshape(*shape[:3], v.shape[3]).to(dtype)
