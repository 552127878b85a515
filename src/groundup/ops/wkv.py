"""RWKV-4's weighted mean of values: weights fall off with distance, and a token's own has a bonus.

    y_t = (sum_{s<t} e^{k_s - (t-1-s) w} v_s + e^{k_t + u} v_t) / (the same without v)

Source: Peng et al. 2023 (arXiv:2305.13048), equation 16; the running maximum that keeps exponents small, appendix D.
Letters: C channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from groundup.ops import linear_scan

NOTHING = -1e30  # the exponent of what has not been read


class Sums(NamedTuple):
    """The numerator and the denominator over what was read, both divided by e^top."""

    values: Float[Tensor, "B C"]
    weights: Float[Tensor, "B C"]
    top: Float[Tensor, "B C"]


def reference(
    k: Float[Tensor, "B T C"],
    v: Float[Tensor, "B T C"],
    w: Float[Tensor, "C"],
    u: Float[Tensor, "C"],
    sums: Sums,
    *,
    starts: Bool[Tensor, "B T"] | None = None,
    lengths: Int[Tensor, "B"] | None = None,
) -> tuple[Float[Tensor, "B T C"], Sums]:
    """Returns the means, and the sums after the last token: the definition.

    Args:
        k: the logarithms of weights.
        v: values.
        w: by how much a weight's logarithm falls with each token, positive.
        u: the bonus of a token's own weight.
        sums: over what was read before.
        starts: where a document begins, of which nothing before is remembered.
        lengths: how many tokens of each row are real; the others change nothing that is kept.
    """
    means = []
    for t in range(k.shape[1]):
        if starts is not None:
            sums = _cut(sums, starts[:, t, None])
        means.append(_mean(sums, k[:, t] + u, v[:, t]))
        top = torch.maximum(sums.top - w, k[:, t])
        old, own = (sums.top - w - top).exp(), (k[:, t] - top).exp()
        new = Sums(old * sums.values + own * v[:, t], old * sums.weights + own, top)
        if lengths is not None:
            new = Sums(*(torch.where((t < lengths)[:, None], n, o) for n, o in zip(new, sums, strict=True)))
        sums = new
    return torch.stack(means, 1), sums


def scanned(
    k: Float[Tensor, "B T C"],
    v: Float[Tensor, "B T C"],
    w: Float[Tensor, "C"],
    u: Float[Tensor, "C"],
    sums: Sums,
    *,
    starts: Bool[Tensor, "B T"] | None = None,
    lengths: Int[Tensor, "B"] | None = None,
) -> tuple[Float[Tensor, "B T C"], Sums]:
    """Returns what `reference` does; with all tops known from the start, the sums are one linear recurrence."""
    top = _tops(k, w, sums.top, starts)
    before = torch.cat([sums.top[:, None], top[:, :-1]], 1)
    if starts is not None:
        before = before.masked_fill(starts[..., None], NOTHING)
    own = (k - top).exp()
    first = torch.stack([sums.values, sums.weights], 1)
    keep = (before - w - top).exp()[:, :, None]
    held = linear_scan.scan(keep, torch.stack([own * v, own], 2), first)  # (B, T, 2, C)
    values, weights = torch.cat([first[:, None], held[:, :-1]], 1).unbind(2)
    past = Sums(values, weights, before)
    if starts is not None:
        past = _cut(past, starts[..., None])
    if lengths is None:
        last = Sums(held[:, -1, 0], held[:, -1, 1], top[:, -1])
    else:
        place = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, k.shape[2])
        ends = [t.gather(1, place)[:, 0] for t in (*held.unbind(2), top)]
        last = Sums(*(torch.where((lengths > 0)[:, None], e, s) for e, s in zip(ends, sums, strict=True)))
    return _mean(past, k + u, v), last


@torch.no_grad()
def _tops(k: Tensor, w: Tensor, first: Tensor, starts: Tensor | None) -> Tensor:
    """Returns the running maximum max(top - w, k); means do not depend on it, so it needs no gradient.

    In k + t w, nothing falls with distance and the maximum is an ordinary one. Each document is raised above those
    before it. These numbers are large, hence float64, which Apple's GPUs do not have.
    """
    exact = torch.float32 if k.device.type == "mps" else torch.float64
    place = torch.arange(k.shape[1], device=k.device)[:, None]
    fall = place * w.to(exact)
    level = k + fall
    start = first.to(exact) - w
    if starts is not None:
        height = torch.maximum(level.max(), start.max()) - level.min() + 1
        raised = starts.cumsum(1)[..., None] * height
        level = level + raised
        fall = fall + raised
    return (torch.maximum(level.cummax(1).values, start[:, None]) - fall).to(k.dtype)


def _mean(sums: Sums, k: Tensor, v: Tensor) -> Tensor:
    """The mean over what was read and one value more, of weight e^k."""
    top = torch.maximum(sums.top, k).detach()
    old, own = (sums.top - top).exp(), (k - top).exp()
    return (old * sums.values + own * v) / (old * sums.weights + own)


def _cut(sums: Sums, starts: Tensor) -> Sums:
    return Sums(*(s.masked_fill(starts, to) for s, to in zip(sums, (0.0, 0.0, NOTHING), strict=True)))
