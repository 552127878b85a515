"""A linear recurrence of every channel with states that turn and fade at fixed rates, as a convolution in chunks.

    h_t = a h_{t-1} + u_t,   y_t = 2 Re(c . h_t),   a = exp(log)
    within a chunk: y_t = sum_{s <= t} K_{t-s} u_s,   K_j = 2 Re(c . a^j)

Each state stands for itself and its conjugate, hence the 2 Re. Source: Gu et al. 2022 (S4D, arXiv:2206.11893), sections
2 and 3; the convolution is cut into chunks, of which only K within one is made, because documents may begin anywhere in
a row. All is in float32 or wider. Letters: E channels, N states of a channel, Q tokens of a chunk, C chunks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor
from torch.nn import functional as F

from groundup.ops.causal_conv import causal_conv

CHUNK = 64


def reference(
    u: Float[Tensor, "B T E"],
    log: Complex[Tensor, "E N"],
    c: Complex[Tensor, "E N"],
    *,
    before: Complex[Tensor, "B E N"] | None = None,
    starts: Bool[Tensor, "B T"] | None = None,
    lengths: Int[Tensor, "B"] | None = None,
) -> tuple[Float[Tensor, "B T E"], Complex[Tensor, "B E N"]]:
    """Returns the outputs and the states after the last real token: the definition.

    Args:
        u: inputs.
        log: the logarithm of what a token leaves of a state; its real part is negative.
        c: how states make an output.
        before: the states before the first token; None means zeros.
        starts: where a document begins, of which nothing before is remembered; None means nowhere.
        lengths: how many tokens of each row are real; None means all.
    """
    a = log.exp()
    h = a.new_zeros(u.shape[0], *a.shape) if before is None else before
    outputs, real = [], torch.ones(len(u), 1, 1, dtype=torch.bool, device=u.device)
    for t in range(u.shape[1]):
        seen = h if starts is None else h.masked_fill(starts[:, t, None, None], 0.0)
        new = a * seen + u[:, t, :, None]
        outputs.append(2 * (c * new).real.sum(-1))
        real = real if lengths is None else (t < lengths)[:, None, None]
        h = torch.where(real, new, h)
    return torch.stack(outputs, 1).to(u.dtype), h


def chunked(
    u: Float[Tensor, "B T E"],
    log: Complex[Tensor, "E N"],
    c: Complex[Tensor, "E N"],
    *,
    before: Complex[Tensor, "B E N"] | None = None,
    starts: Bool[Tensor, "B T"] | None = None,
    lengths: Int[Tensor, "B"] | None = None,
) -> tuple[Float[Tensor, "B T E"], Complex[Tensor, "B E N"]]:
    """Returns what `reference` does, as products of matrices within chunks and between them."""
    size = min(CHUNK, u.shape[1])
    with torch.autocast(u.device.type, enabled=False):
        # An angle of many turns has to be exact, for only what is left of whole turns counts.
        exact = log if u.device.type == "mps" else log.to(torch.complex128)
        rise = (exact[..., None] * torch.arange(size, device=u.device)).exp().to(log.dtype)  # (E, N, Q)
        powers = Powers(
            kernel=2 * (c[..., None] * rise).real.sum(1),
            enter=entering(rise),
            leave=leaving(c[..., None] * rise * log.exp()[..., None]),
            carry=lambda h, count: (log * count[:, None, None]).exp() * h,
        )
        return in_chunks(u, powers, before=before, starts=starts, lengths=lengths)


@dataclass(frozen=True)
class Powers:
    """What the tokens of a chunk are to each other, whatever the matrix A of the recurrence is.

    Attributes:
        kernel: what an input is in the output so many tokens later.
        enter: what an input is in the states so many tokens later, as `entering` makes it.
        leave: how states before a chunk make the output of each of its tokens, as `leaving` makes it.
        carry: states (R, E, N), and for each row of them over how many tokens, at most Q, to the states after these.
    """

    kernel: Float[Tensor, "E Q"]
    enter: Float[Tensor, "E Q N2"]
    leave: Float[Tensor, "E N2 Q"]
    carry: Callable[[Tensor, Tensor], Tensor]


def in_chunks(
    u: Float[Tensor, "B T E"],
    powers: Powers,
    *,
    before: Complex[Tensor, "B E N"] | None,
    starts: Bool[Tensor, "B T"] | None,
    lengths: Int[Tensor, "B"] | None,
) -> tuple[Float[Tensor, "B T E"], Complex[Tensor, "B E N"]]:
    """Returns the outputs and the last states, by what tokens of a chunk are to each other."""
    rows, tokens, size = u.shape[0], u.shape[1], powers.kernel.shape[1]
    if before is None:  # zeros, of the right type
        states = powers.enter.new_zeros(rows, u.shape[2], powers.enter.shape[2] // 2, 2)
        before = torch.view_as_complex(states)
    x = _chunks(u.to(powers.kernel.dtype), size)  # (B, C, Q, E)
    number = None if starts is None else _chunks(starts.long(), size).cumsum(2)  # of the chunk's document
    y = _within(x, powers.kernel, number)

    last = x if number is None else x * (number == number[..., -1:])[..., None]
    entered, every = enter(last.flatten(0, 1), powers.enter).unflatten(0, (rows, -1)), []  # (B, C, E, N)
    whole = torch.full((rows,), size, device=u.device)
    for chunk, new in enumerate(entered.unbind(1)):
        every.append(before)
        if chunk + 1 < x.shape[1]:
            h = powers.carry(before, whole)
            before = new + (h if number is None else h * (number[:, chunk, -1] == 0)[:, None, None])
    begins = torch.stack(every, 1)
    left = leave(begins.flatten(0, 1), powers.leave).unflatten(0, (rows, -1))
    y = y + (left if number is None else left * (number == 0)[..., None])

    ends = torch.full((rows,), tokens, device=u.device) if lengths is None else lengths
    return y.flatten(1, 2)[:, :tokens].to(u.dtype), _after(x, begins, number, powers, ends)


def flops(tokens: int, *, channels: int, states: int) -> int:
    """Returns the operations of the products in `chunked` for a row of tokens, those that fill a chunk included."""
    size = min(CHUNK, tokens)
    filled = math.ceil(tokens / size) * size
    return 2 * channels * (filled * (size + 4 * states) + 2 * size * states)


def backward_flops(tokens: int, *, channels: int, states: int) -> int:
    """Returns the operations of the backward of `chunked` from zeros, where nothing reads the last states.

    They have no backward; in a text of one chunk nor has what enters it, and it reads zeros.
    """
    size = min(CHUNK, tokens)
    spared = (5 if tokens <= size else 2) * 2 * channels * size * 2 * states
    return 2 * flops(tokens, channels=channels, states=states) - spared


def _chunks(x: Tensor, size: int) -> Tensor:
    """Returns (B, T, ...) as (B, C, Q, ...), with zeros to fill the last chunk."""
    missing = -x.shape[1] % size
    return (F.pad(x, (0, 0) * (x.ndim - 2) + (0, missing)) if missing else x).unflatten(1, (-1, size))


def _within(x: Float[Tensor, "B C Q E"], kernel: Float[Tensor, "E Q"], number: Tensor | None) -> Tensor:
    """Returns the convolution of each chunk by itself, (B, C, Q, E)."""
    rows, size = x.flatten(0, 1), kernel.shape[1]
    if number is not None:
        starts = number.diff(dim=-1, prepend=number[..., :1]).flatten(0, 1) != 0
        return causal_conv(rows, kernel.flip(1), starts=starts).view_as(x)
    place = torch.arange(size, device=x.device)
    behind = place - place[:, None]  # (Q before, Q after)
    toeplitz = kernel[:, behind.clamp(min=0)] * (behind >= 0)  # (E, Q, Q)
    return (rows.permute(2, 0, 1) @ toeplitz).permute(1, 2, 0).view_as(x)


def entering(rise: Complex[Tensor, "E N Q"]) -> Float[Tensor, "E Q N2"]:
    """Returns what an input is in states so many tokens later as what `enter` multiplies by: one for all chunks."""
    return torch.view_as_real(rise.flip(-1).mT.contiguous()).flatten(2)


def enter(x: Float[Tensor, "R Q E"], to_end: Float[Tensor, "E Q N2"]) -> Complex[Tensor, "R E N"]:
    """Returns what the inputs of chunks come to at their ends."""
    made = x.permute(2, 0, 1) @ to_end
    return torch.view_as_complex(made.unflatten(-1, (-1, 2)).transpose(0, 1).contiguous())


def leaving(read: Complex[Tensor, "E N Q"]) -> Float[Tensor, "E N2 Q"]:
    """Returns how states before a chunk are read at its tokens, 2 Re(read . h), as what `leave` multiplies by."""
    return 2 * torch.stack([read.real, -read.imag], 2).flatten(1, 2)


def leave(held: Complex[Tensor, "R E N"], weights: Float[Tensor, "E N2 Q"]) -> Float[Tensor, "R Q E"]:
    """Returns what the states before chunks are at each of their tokens."""
    pairs = torch.view_as_real(held.transpose(0, 1).contiguous()).flatten(2)  # (E, R, 2N)
    return (pairs @ weights).permute(1, 2, 0)


def at_end(x: Float[Tensor, "R Q E"], count: Int[Tensor, "R"]) -> Float[Tensor, "R Q E"]:
    """Returns the first so many tokens of each chunk moved to its end, behind zeros."""
    size = x.shape[1]
    place = torch.arange(size, device=x.device) - (size - count)[:, None]
    return x.gather(1, place.clamp(min=0)[..., None].expand_as(x)) * (place >= 0)[..., None]


def _after(
    x: Float[Tensor, "B C Q E"],
    begins: Complex[Tensor, "B C E N"],
    number: Int[Tensor, "B C Q"] | None,
    powers: Powers,
    ends: Int[Tensor, "B"],
) -> Complex[Tensor, "B E N"]:
    """Returns the states after the last real token of each row, which may lie anywhere in a chunk."""
    size, row = x.shape[2], torch.arange(len(x), device=x.device)
    chunk = ((ends - 1) // size).clamp(min=0)
    count = ends - chunk * size  # real tokens of that chunk
    carried, tail = powers.carry(begins[row, chunk], count), x[row, chunk]
    if number is not None:
        document = number[row, chunk]  # (B, Q)
        of_last = document.gather(1, (count - 1).clamp(min=0)[:, None])
        tail = tail * (document == of_last)[..., None]
        carried = carried * (of_last[..., None] == 0)
    return enter(at_end(tail, count), powers.enter) + carried
