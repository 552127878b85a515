"""Softmax attention over given queries, keys and values.

    y_t = sum_s softmax_s(scale * q_t . k_s) v_s     over the s that t may see

Source: Vaswani et al. 2017 (arXiv:1706.03762), equation 1; shared key/value heads: Ainslie et al. 2023
(arXiv:2305.13245). Letters: B rows, T queries, S keys, H heads, G key/value heads (H a multiple of G), K head width.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from groundup.ops import blocked_attention


def reference(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B G S K"],
    *,
    allowed: Bool[Tensor, "B 1 T S"] | None,
    scale: float,
    dropout: float = 0.0,
) -> Float[Tensor, "B H T K"]:
    """Returns the attention of every query over the keys that ``allowed`` lets it see: the definition.

    Args:
        q: queries.
        k: keys; each of the G heads serves H / G heads of queries.
        v: values.
        allowed: which query sees which key; None means the keys up to the query's own place (T = S).
        scale: what scores are multiplied by, usually K**-0.5.
        dropout: the chance of each attention weight to be dropped.
    """
    groups = q.shape[1] // k.shape[1]
    k, v = (t.repeat_interleave(groups, 1) for t in (k, v))
    if allowed is None:
        allowed = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    score = torch.einsum("bhtk,bhsk->bhts", q, k)
    score = score.to(torch.promote_types(score.dtype, torch.float32)) * scale
    weight = score.masked_fill(~allowed, float("-inf")).softmax(-1)
    weight = F.dropout(weight, dropout).to(v.dtype)
    return torch.einsum("bhts,bhsk->bhtk", weight, v)


def attend(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B G S K"],
    *,
    allowed: Bool[Tensor, "B 1 T S"] | None,
    scale: float,
    dropout: float = 0.0,
) -> Float[Tensor, "B H T K"]:
    """Returns what `reference` does, through PyTorch's fused kernels (FlashAttention where the device has it).

    On a processor `groundup.ops.blocked_attention` is faster where it says so, but for the one query of a decoding
    step, and unless weights are dropped.
    """
    shape, dtype, alone, groups = q.shape, q.dtype, q.shape[2] == 1, q.shape[1] // k.shape[1]
    if not alone and not dropout and blocked_attention.is_faster(q, k):
        return blocked_attention.attend(q, k, v, allowed=allowed, scale=scale)
    if alone and groups > 1:
        # While decoding, heads that share keys are queries of one head, so that its keys are read once for all.
        q = q.reshape(shape[0], k.shape[1], groups, shape[3])
    elif alone and dtype == torch.bfloat16 and q.device.type == "cpu":
        # A processor's bfloat16 products of a single row take 3 to 5 times as long as those in float32.
        q, k, v = q.float(), k.float(), v.float()
    y = F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=allowed,
        is_causal=allowed is None and not alone,
        scale=scale,
        dropout_p=dropout,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return y.reshape(shape).to(dtype)
