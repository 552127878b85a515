"""A recurrence without products of matrices: each channel keeps a part of what it holds and takes in a number.

    h_t = a_t h_{t-1} + b_t

The sequence is cut into about as many spans as a span has tokens; all spans run beside each other, first for what they
come to by themselves, then from where they really begin (Blelloch 1990, Prefix Sums and Their Applications, section
1.4). The backward is the same recurrence from the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.nn import functional as F

from groundup.inside import INSIDES


def reference(
    a: Shaped[Tensor, "_B _T *factors"],
    b: Shaped[Tensor, "B T *channels"],
    before: Shaped[Tensor, "B *channels"] | None = None,
) -> Shaped[Tensor, "B T *channels"]:
    """Returns what is held after each token, all of it real or all of it complex: the definition.

    Args:
        a: what is kept; an axis of length 1 stands for all rows, tokens or channels.
        b: what is taken in.
        before: what is held before the first token; None means zeros.
    """
    held, every = torch.zeros_like(b[:, 0]) if before is None else before, []
    for t in range(b.shape[1]):
        held = a[:, min(t, a.shape[1] - 1)] * held + b[:, t]
        every.append(held)
    return torch.stack(every, 1)


def scan(
    a: Shaped[Tensor, "_B _T *factors"],
    b: Shaped[Tensor, "B T *channels"],
    before: Shaped[Tensor, "B *channels"] | None = None,
) -> Shaped[Tensor, "B T *channels"]:
    """Returns what `reference` does, in about the root of T steps and three passes over memory."""
    if b.shape[1] == 1:
        return reference(a, b, before)
    before = torch.zeros_like(b[:, 0]) if before is None else before
    return torch.ops.groundup.linear_scan(a.expand(-1, b.shape[1], *a.shape[2:]), b, before)


def _scan(a: Tensor, b: Tensor, before: Tensor) -> Tensor:
    factors, taken = (_in_spans(t).unbind(2) for t in (a, b))
    return _run(factors, taken, before, back=False)[:, : b.shape[1]].contiguous()


def _backward(grad: Tensor, a: Tensor, every: Tensor, before: Tensor) -> list[Tensor]:
    """The gradients of a, b and before."""
    factors, taken = (_in_spans(t).unbind(2) for t in (a.conj().resolve_conj(), grad))
    of_next_span = F.pad(factors[0][:, 1:], (0, 0) * (a.ndim - 2) + (0, 1))
    slope = _run([*factors[1:], of_next_span], taken, torch.zeros_like(before), back=True)[:, : grad.shape[1]]
    of_a = torch.empty_like(slope)
    torch.mul(slope[:, 0], before.conj(), out=of_a[:, 0])
    torch.mul(slope[:, 1:], every[:, :-1].conj(), out=of_a[:, 1:])
    shared = [axis for axis in range(a.ndim) if a.shape[axis] != every.shape[axis]]
    of_a = of_a.sum(shared, keepdim=True) if shared else of_a
    of_before = (a[:, 0].conj() * slope[:, 0]).resolve_conj()
    return [of_a.contiguous(), slope.contiguous(), of_before.contiguous()]


def _in_spans(x: Tensor) -> Tensor:
    """Returns the tokens in spans (B, spans, span, ...), the last one filled up with zeros."""
    span = 1 << ((x.shape[1] - 1).bit_length() + 1) // 2
    missing = -x.shape[1] % span
    return (F.pad(x, (0, 0) * (x.ndim - 2) + (0, missing)) if missing else x).unflatten(1, (-1, span))


def _run(factors: Sequence[Tensor], taken: Sequence[Tensor], before: Tensor, *, back: bool) -> Tensor:
    """Returns what is held after each token, from the end where ``back`` says so; the spans are (B, spans, ...)."""
    way = -1 if back else 1
    spans, steps = taken[0].shape[1], list(zip(factors, taken, strict=True))[::way]
    kept, alone = steps[0]
    for factor, new in steps[1:]:
        alone, kept = torch.addcmul(new, factor, alone), kept * factor
    begins = [before]
    for i in range(spans)[::way][:-1]:
        begins.append(torch.addcmul(alone[:, i], kept[:, i], begins[-1]))
    held = torch.stack(begins[::way], 1)
    every = held.new_empty(held.shape[0], spans, len(steps), *held.shape[2:])
    for (factor, new), out in zip(steps, every.unbind(2)[::way], strict=True):
        held = torch.addcmul(new, factor, held, out=out)
    return every.flatten(1, 2)


# One operation for a compiler: traced, it would become a graph of all its steps.
_library = torch.library.Library("groundup", "FRAGMENT")
_library.define("linear_scan(Tensor a, Tensor b, Tensor before) -> Tensor")
_library.define("linear_scan_backward(Tensor grad, Tensor a, Tensor every, Tensor before) -> Tensor[]")
_library.impl("linear_scan", _scan, "CompositeExplicitAutograd")
_library.impl("linear_scan_backward", _backward, "CompositeExplicitAutograd")


def _empty(a: Tensor, b: Tensor, before: Tensor) -> Tensor:
    return b.new_empty(b.shape, dtype=torch.promote_types(torch.promote_types(a.dtype, b.dtype), before.dtype))


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], output, inputs[2])


def _grads(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.ops.groundup.linear_scan_backward(grad, *ctx.saved_tensors))


torch.library.register_fake("groundup::linear_scan", _empty, lib=_library)
torch.library.register_fake(
    "groundup::linear_scan_backward",
    lambda grad, a, every, before: [t.new_empty(t.shape) for t in (a, every, before)],
    lib=_library,
)
torch.library.register_autograd("groundup::linear_scan", _grads, setup_context=_save, lib=_library)
INSIDES[torch.ops.groundup.linear_scan.default] = _scan
INSIDES[torch.ops.groundup.linear_scan_backward.default] = _backward
