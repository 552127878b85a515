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
        k: keys: those of the N blocks, then G that every block reads (S = T + G).
        v: values.
        plan: which blocks of keys a block of queries reads; what is no block's number stands for none.
        allowed: which query of a block sees which key on its list; each sees one at least, and none of what is none.
        scale: what scores are multiplied by.
    """
    tokens, size = q.shape[2], allowed.shape[3]
    place = places(plan, size=size)
    every = torch.arange(tokens, k.shape[2], device=q.device).expand(*place.shape[:2], -1)
    listed = torch.cat([place.clamp(0, tokens - 1), every], -1)  # (#H, N, X)
    times = torch.zeros(*q.shape[:3], k.shape[2], dtype=q.dtype, device=q.device)
    for n in range(plan.shape[1]):
        seen = allowed[:, :, n].expand(*q.shape[:2], -1, -1)
        times[:, :, n * size : (n + 1) * size].scatter_add_(3, listed[:, n, None].expand_as(seen), seen.to(times.dtype))
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
    k, v = (_listed(t, plan, tokens=q.shape[2]).transpose(1, 2).flatten(0, 1) for t in (k, v))  # (B N, H, X, K)
    seen = allowed.expand(rows, -1, -1, -1, -1).transpose(1, 2).flatten(0, 1)
    q = q.unflatten(2, (blocks, -1)).transpose(1, 2).flatten(0, 1)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale, dropout_p=dropout)
    return y.unflatten(0, (rows, blocks)).transpose(1, 2).flatten(2, 3)


def _listed(x: Float[Tensor, "B H S K"], plan: Int[Tensor, "#H N J"], *, tokens: int) -> Float[Tensor, "B H N X K"]:
    """Returns the keys or values on each block's list; where there is none, those of some block."""
    blocks = plan.shape[1]
    head = torch.arange(plan.shape[0], device=x.device)[:, None, None] if plan.shape[0] > 1 else slice(None)
    inside = plan.clamp(0, blocks - 1)
    listed = (
        x[:, :, :tokens].unflatten(2, (blocks, -1))[:, head, inside if plan.shape[0] > 1 else inside[0]].flatten(3, 4)
    )
    if x.shape[2] == tokens:
        return listed
    return torch.cat([listed, x[:, :, None, tokens:].expand(-1, -1, blocks, -1, -1)], 3)


def places(plan: Int[Tensor, "#H N J"], *, size: int) -> Int[Tensor, "#H N X"]:
    """Returns the place of each key on a block's list, -1 where there is none."""
    inside = (plan >= 0) & (plan < plan.shape[1])
    place = plan[..., None] * size + torch.arange(size, device=plan.device)
    return torch.where(inside[..., None], place, -1).flatten(2)


def window(blocks: int, *, before: int, after: int, device: torch.device) -> Int[Tensor, "1 N J"]:
    """Returns the plan in which every block reads itself and so many blocks before and after it."""
    apart = torch.arange(max(-before, 1 - blocks), min(after, blocks - 1) + 1, device=device)
    return (torch.arange(blocks, device=device)[:, None] + apart)[None]


def flops(tokens: int, keys: int, *, key_width: int, value_width: int) -> int:
    """Returns the operations of `attend` for one head of one row: ``tokens`` in whole blocks, ``keys`` on each list."""
    return 2 * tokens * keys * (key_width + value_width)
