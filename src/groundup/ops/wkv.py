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
from torch.nn import functional as F

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
    """Returns the running maximum max(top - w, k), in spans beside each other as `linear_scan.scan` runs.

    Means do not depend on it, so it needs no gradient.
    """
    fall = w if starts is None else torch.where(starts[..., None], torch.inf, w)
    return torch.ops.groundup.running_top(k, fall.expand_as(k), first)


def _running_top(k: Tensor, fall: Tensor, first: Tensor) -> Tensor:
    tokens = k.shape[1]
    span = 1 << ((tokens - 1).bit_length() + 1) // 2
    new, falls = (F.pad(t, (0, 0, 0, -tokens % span)).unflatten(1, (-1, span)).unbind(2) for t in (k, fall))
    alone, fallen = new[0], falls[0]  # what a span comes to by itself, and how far it lowers what is before it
    for level, down in zip(new[1:], falls[1:], strict=True):
        alone, fallen = torch.maximum(alone - down, level), fallen + down
    begins = [first]
    for i in range(alone.shape[1] - 1):
        begins.append(torch.maximum(begins[-1] - fallen[:, i], alone[:, i]))
    top, tops = torch.stack(begins, 1), []
    for level, down in zip(new, falls, strict=True):
        top = torch.maximum(top - down, level)
        tops.append(top)
    return torch.stack(tops, 2).flatten(1, 2)[:, :tokens].contiguous()


# One operation for a compiler: traced, it would become a graph of all its steps.
_library = torch.library.Library("groundup", "FRAGMENT")
_library.define("running_top(Tensor k, Tensor fall, Tensor first) -> Tensor")
_library.impl("running_top", _running_top, "CompositeExplicitAutograd")
torch.library.register_fake("groundup::running_top", lambda k, fall, first: k.new_empty(k.shape), lib=_library)


def _mean(sums: Sums, k: Tensor, v: Tensor) -> Tensor:
    """The mean over what was read and one value more, of weight e^k."""
    top = torch.maximum(sums.top, k).detach()
    old, own = (sums.top - top).exp(), (k - top).exp()
    return (old * sums.values + own * v) / (old * sums.weights + own)


def _cut(sums: Sums, starts: Tensor) -> Sums:
    return Sums(*(s.masked_fill(starts, to) for s, to in zip(sums, (0.0, 0.0, NOTHING), strict=True)))
