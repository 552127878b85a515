"""A linear recurrence of every channel whose matrix is a diagonal less one product of vectors, in chunks.

    h_t = A h_{t-1} + b u_t,   y_t = 2 Re(c . h_t),   A h = d h - g 2 Re(w . h)

Each state stands for itself and its conjugate, hence the 2 Re, also where A reads the states. Powers of A are made one
after the other, from vectors: A^j b and A^j g are what an input, and what A reads, are j tokens later, and so

    A^n h = d^n h - sum_{j < n} A^{n-1-j} g 2 Re(w d^j . h)

Source: Gu et al. 2021 (S4, arXiv:2111.00396), section 3 and appendix C; there the powers are summed by a generating
function for one length of all texts, here for the tokens of a chunk, because documents may begin anywhere in a row.
All is in float32 or wider. Letters: as in `groundup.ops.diagonal_scan`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from groundup.ops import diagonal_scan
from groundup.ops.diagonal_scan import CHUNK, Powers, at_end, enter, entering, in_chunks, leave, leaving


@dataclass(frozen=True)
class Matrix:
    """The matrix A of each channel."""

    d: Complex[Tensor, "E N"]
    g: Complex[Tensor, "E N"]
    w: Complex[Tensor, "E N"]

    def times(self, h: Complex[Tensor, "*rows E N"]) -> Complex[Tensor, "*rows E N"]:
        """Returns A h."""
        return self.d * h - self.g * (2 * (self.w * h).real.sum(-1, keepdim=True))

    def transposed(self) -> Matrix:
        """Returns what reads states after A as this reads them before it: c . (A h) = (A' c) . h."""
        return Matrix(self.d, self.w, self.g)


def reference(
    u: Float[Tensor, "B T E"],
    matrix: Matrix,
    b: Complex[Tensor, "E N"],
    c: Complex[Tensor, "E N"],
    *,
    before: Complex[Tensor, "B E N"] | None = None,
    starts: Bool[Tensor, "B T"] | None = None,
    lengths: Int[Tensor, "B"] | None = None,
) -> tuple[Float[Tensor, "B T E"], Complex[Tensor, "B E N"]]:
    """Returns the outputs and the states after the last real token: the definition.

    Args:
        u: inputs.
        matrix: what a token makes of the states before it.
        b: how inputs enter states.
        c: how states make an output.
        before: the states before the first token; None means zeros.
        starts: where a document begins, of which nothing before is remembered; None means nowhere.
        lengths: how many tokens of each row are real; None means all.
    """
    h = b.new_zeros(u.shape[0], *b.shape) if before is None else before
    outputs, real = [], torch.ones(len(u), 1, 1, dtype=torch.bool, device=u.device)
    for t in range(u.shape[1]):
        seen = h if starts is None else h.masked_fill(starts[:, t, None, None], 0.0)
        new = matrix.times(seen) + b * u[:, t, :, None]
        outputs.append(2 * (c * new).real.sum(-1))
        real = real if lengths is None else (t < lengths)[:, None, None]
        h = torch.where(real, new, h)
    return torch.stack(outputs, 1).to(u.dtype), h


def chunked(
    u: Float[Tensor, "B T E"],
    matrix: Matrix,
    b: Complex[Tensor, "E N"],
    c: Complex[Tensor, "E N"],
    *,
    before: Complex[Tensor, "B E N"] | None = None,
    starts: Bool[Tensor, "B T"] | None = None,
    lengths: Int[Tensor, "B"] | None = None,
) -> tuple[Float[Tensor, "B T E"], Complex[Tensor, "B E N"]]:
    """Returns what `reference` does, as products of matrices within chunks and between them."""
    size = min(CHUNK, u.shape[1])
    with torch.autocast(u.device.type, enabled=False):
        inputs, pushes, diagonal = [b], [matrix.g], [torch.ones_like(b)]
        reads, back = [c], matrix.transposed()
        for _ in range(size):
            inputs.append(matrix.times(inputs[-1]))
            pushes.append(matrix.times(pushes[-1]))
            reads.append(back.times(reads[-1]))
            diagonal.append(matrix.d * diagonal[-1])
        entered, pushed = (torch.stack(powers[:size], -1) for powers in (inputs, pushes))  # (E, N, Q)
        fading = torch.stack(diagonal)  # (Q + 1, E, N)
        heard, pushed = leaving((matrix.w * fading[:size]).permute(1, 2, 0)), entering(pushed)
        powers = Powers(
            kernel=2 * (c[..., None] * entered).real.sum(1),
            enter=entering(entered),
            leave=leaving(torch.stack(reads[1:], -1)),
            carry=lambda h, count: fading[count] * h - enter(at_end(leave(h, heard), count), pushed),
        )
        return in_chunks(u, powers, before=before, starts=starts, lengths=lengths)


def flops(tokens: int, *, channels: int, states: int) -> int:
    """Returns the operations of the products in `chunked` for a row of tokens, those that fill a chunk included."""
    size = min(CHUNK, tokens)
    chunks = -(-tokens // size)
    carried = chunks * 2 * channels * size * 4 * states  # over each chunk, and over the real tokens of the last
    return diagonal_scan.flops(tokens, channels=channels, states=states) + carried


def backward_flops(tokens: int, *, channels: int, states: int) -> int:
    """Returns the operations of the backward of `chunked` from zeros, where nothing reads the last states.

    Over the last chunk nothing has to be carried back, and what is carried over the first is zeros.
    """
    size = min(CHUNK, tokens)
    one = 2 * channels * size * 2 * states  # reading states, or entering them, over a chunk
    carried = max(4 * (-(-tokens // size) - 1) - 1, 0) * one
    return diagonal_scan.backward_flops(tokens, channels=channels, states=states) + carried
