"""State space duality: a recurrence with one decay a head, as attention within chunks and a scan over them.

    h_t = exp(a d_t) h_{t-1} + (d_t x_t) b_t^T;   y_t = h_t c_t
    within a chunk: y = (L * c b^T) (d x),  L_ts = exp(a (d_{s+1} + ... + d_t)) for s <= t

Source: Dao and Gu 2024 (Mamba-2, arXiv:2405.21060), sections 5 to 6, listing 1. Sums are in float32 or wider. Letters:
H heads, P width of a head, G groups of heads that share b and c, N states, Q tokens of a chunk, C chunks.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from groundup.ops import kernels, linear_scan

CHUNK = 64


def reference(
    x: Float[Tensor, "B T H P"],
    step: Float[Tensor, "B T H"],
    a: Float[Tensor, "H"],
    b: Float[Tensor, "B T G N"],
    c: Float[Tensor, "B T G N"],
    *,
    before: Float[Tensor, "B H P N"] | None = None,
    starts: Bool[Tensor, "B T"] | None = None,
) -> tuple[Float[Tensor, "B T H P"], Float[Tensor, "B H P N"]]:
    """Returns the outputs and the states after the last token: the definition.

    Args:
        x: inputs.
        step: how far each token moves a head's states; a step of zero changes nothing.
        a: the rate of each head, negative.
        b: how an input enters the states.
        c: how the states make an output.
        before: the states before the first token; None means zeros.
        starts: where a document begins, of which nothing before is remembered; None means nowhere.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    b, c = (t.repeat_interleave(x.shape[2] // t.shape[2], 2).to(wide) for t in (b, c))
    h = x.new_zeros(x.shape[0], *x.shape[2:], b.shape[3], dtype=wide) if before is None else before
    outputs = []
    for t in range(x.shape[1]):
        if starts is not None:
            h = h.masked_fill(starts[:, t, None, None, None], 0.0)
        entered = (step[:, t, :, None] * x[:, t])[..., None] * b[:, t, :, None]
        h = (a * step[:, t]).exp()[..., None, None] * h + entered
        outputs.append((h * c[:, t, :, None]).sum(-1))
    return torch.stack(outputs, 1).to(x.dtype), h


def chunked(
    x: Float[Tensor, "B T H P"],
    step: Float[Tensor, "B T H"],
    a: Float[Tensor, "H"],
    b: Float[Tensor, "B T G N"],
    c: Float[Tensor, "B T G N"],
    *,
    before: Float[Tensor, "B H P N"] | None = None,
    starts: Bool[Tensor, "B T"] | None = None,
) -> tuple[Float[Tensor, "B T H P"], Float[Tensor, "B H P N"]]:
    """Returns what `reference` does, as products of matrices."""
    if kernels.keep_matrices(x, tokens=x.shape[1], sides=(x.shape[3], b.shape[3])):
        return kernels.ssd(x, step, a, b, c, before=before, starts=starts)
    tokens, groups, size = x.shape[1], b.shape[2], min(CHUNK, x.shape[1])
    wide = torch.promote_types(x.dtype, torch.float32)
    heads = (groups, x.shape[2] // groups)  # G and H / G

    moved = _chunks((x * step[..., None]).to(wide), size).unflatten(3, heads)  # (B, C, Q, G, H/G, P)
    b, c = (_chunks(t.to(wide), size).transpose(2, 3) for t in (b, c))  # (B, C, G, Q, N)
    # The logarithm of a decay is a difference of long sums, which has to be exact where they are nearly equal.
    exact = torch.float32 if x.device.type == "mps" else torch.float64
    log = _chunks(step * a, size).cumsum(2, dtype=exact).unflatten(3, heads).permute(0, 1, 3, 4, 2)  # (B, C, G, H/G, Q)
    number = (
        None if starts is None else _chunks(starts.long(), size).cumsum(2)[:, :, None, None]
    )  # of the chunk's document

    within = _decay(
        (log[..., :, None] - log[..., None, :]).to(wide), _same(number, size, x.device)
    )  # (B, C, G, H/G, Q, Q)
    by_head = moved.permute(0, 1, 3, 4, 2, 5)  # (B, C, G, H/G, Q, P)
    y = ((c @ b.mT)[:, :, :, None] * within) @ by_head

    to_end = _decay((log[..., -1:] - log).to(wide), None if number is None else number == number[..., -1:])
    entered = (by_head * to_end[..., None]).transpose(4, 5).flatten(3, 4) @ b  # (B, C, G, H/G P, N)
    over = _decay(log[..., -1].to(wide), None if number is None else number[..., -1] == 0).flatten(2, 3)  # (B, C, H)
    entered = entered.unflatten(3, (heads[1], -1)).flatten(2, 3)  # (B, C, H, P, N)
    first = torch.zeros_like(entered[:, 0]) if before is None else before.to(wide)
    after = linear_scan.scan(over[..., None, None], entered, first)
    held = torch.cat([first[:, None], after[:, :-1]], 1).unflatten(2, heads).flatten(3, 4)  # (B, C, G, H/G P, N)
    since = _decay(log.to(wide), None if number is None else number == 0)  # (B, C, G, H/G, Q)
    y = y + (held @ c.mT).unflatten(3, (heads[1], -1)).mT * since[..., None]
    return y.permute(0, 1, 4, 2, 3, 5).flatten(1, 2)[:, :tokens].flatten(2, 3).to(x.dtype), after[:, -1]


def flops(tokens: int, *, heads: int, head_width: int, groups: int, states: int) -> int:
    """Returns the operations of the products in `chunked` for a row of tokens, those that fill a chunk included."""
    size = min(CHUNK, tokens)
    filled = math.ceil(tokens / size) * size
    return 2 * filled * (size * (groups * states + heads * head_width) + 2 * heads * head_width * states)


def _chunks(x: Tensor, size: int) -> Tensor:
    """Returns (B, T, ...) as (B, C, Q, ...), with zeros to fill the last chunk: a step of zero changes nothing."""
    missing = -x.shape[1] % size
    return (F.pad(x, (0, 0) * (x.ndim - 2) + (0, missing)) if missing else x).unflatten(1, (-1, size))


def _decay(log: Tensor, seen: Tensor | None) -> Tensor:
    """Returns exp(log), zero where nothing is seen."""
    return log.exp() if seen is None else log.masked_fill(~seen, -math.inf).exp()


def _same(number: Tensor | None, size: int, device: torch.device) -> Bool[Tensor, "*chunks Q Q"]:
    """Returns which tokens of a chunk see which: those of their document up to themselves."""
    causal = torch.ones(size, size, dtype=torch.bool, device=device).tril()
    return causal if number is None else causal & (number[..., :, None] == number[..., None, :])
