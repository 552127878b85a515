"""RWKV-4's weighted mean of values: weights fall off with distance, and a token's own has a bonus.

    y_t = (sum_{s<t} e^{k_s - (t-1-s) w} v_s + e^{k_t + u} v_t) / (the same without v)

Source: Peng et al. 2023 (arXiv:2305.13048), equation 16; the running maximum that keeps exponents small, appendix D.
Letters: C channels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from groundup.autograd import once
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
            here = starts[:, t] if lengths is None else starts[:, t] & (t < lengths)
            sums = _cut(sums, here[:, None])
        means.append(_mean(sums, k[:, t] + u, v[:, t]))
        top = torch.maximum(sums.top - w, k[:, t]).detach()
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
    y, held = _WKV.apply(k, v, w, u, torch.stack([sums.values, sums.weights], 1), top, before)
    if lengths is None:
        return y, Sums(held[:, -1, 0], held[:, -1, 1], top[:, -1])
    place = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, k.shape[2])
    ends = [t.gather(1, place)[:, 0] for t in (*held.unbind(2), top)]
    return y, Sums(*(torch.where((lengths > 0)[:, None], e, s) for e, s in zip(ends, sums, strict=True)))


class _WKV(torch.autograd.Function):
    """The means y and the sums (A, W) after each token, with a backward by hand: a step of RWKV-4 is a tenth shorter.

    y_t = p_t A_{t-1} + q_t v_t     q_t = sigmoid(k_t + u - top_{t-1} - log W_{t-1})     p_t = (1 - q_t) / W_{t-1}
    """

    @staticmethod
    def forward(
        ctx: Any, k: Tensor, v: Tensor, w: Tensor, u: Tensor, first: Tensor, top: Tensor, before: Tensor
    ) -> tuple[Tensor, Tensor]:
        own, keep = (k - top).exp_(), (before - w).sub_(top).exp_()
        held = linear_scan.scan(keep[:, :, None], torch.stack([own * v, own], 2), first)
        weights = torch.cat([first[:, None, 1], held[:, :-1, 1]], 1).clamp_(min=torch.finfo(k.dtype).tiny)
        alone = (k + u).sub_(before).sub_(weights.log()).sigmoid_()
        past = (1 - alone).div_(weights)
        y = alone * v
        y[:, 1:] += past[:, 1:] * held[:, :-1, 0]
        y[:, 0] += past[:, 0] * first[:, 0]
        ctx.save_for_backward(v, first, own, keep, past, alone, held, y)
        ctx.set_materialize_grads(False)
        return y, held

    @staticmethod
    @once
    def backward(  # pyrefly: ignore[bad-override]: the decorator hides the names
        ctx: Any, *grad_outputs: Any
    ) -> Any:
        v, first, own, keep, past, alone, held, y = ctx.saved_tensors
        grad, of_held = grad_outputs
        grad = torch.zeros_like(y) if grad is None else grad
        read = past * grad
        counted = (read * y).neg_()
        asked = torch.empty_like(held)  # of the sums, by the means of the tokens after them
        asked[:, :-1, 0], asked[:, :-1, 1], asked[:, -1] = read[:, 1:], counted[:, 1:], 0
        asked = asked if of_held is None else asked + of_held
        of_keep, slope, of_first = torch.ops.groundup.linear_scan_backward(asked, keep[:, :, None], held, first)
        of_first += torch.stack([read[:, 0], counted[:, 0]], 1)
        of_values, of_weights = slope.unbind(2)
        said = alone * grad
        of_bonus = (v - y).mul_(said)
        of_v = said.addcmul_(own, of_values)
        of_k = torch.addcmul(of_weights, v, of_values).mul_(own).add_(of_bonus)
        of_w = -of_keep.squeeze(2).mul_(keep).sum((0, 1))
        return of_k, of_v, of_w, of_bonus.sum((0, 1)), of_first, None, None


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
    missing = -tokens % span
    both = (F.pad(t, (0, 0, 0, missing)) if missing else t for t in (k, fall))
    new, falls = (t.unflatten(1, (-1, span)).unbind(2) for t in both)
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
