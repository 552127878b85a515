"""The selective scan: a diagonal recurrence whose step, input and output maps depend on the token.

    h_t = exp(a d_t) * h_{t-1} + b_t (d_t x_t)^T;   y_t = c_t^T h_t

Source: Gu and Dao 2023 (Mamba, arXiv:2312.00752), section 3.2, algorithm 2. The states of a whole sequence would be
N times the activations; `scan` holds those of one span of tokens at a time and makes them again in the backward
(section 3.3.2). Sums are in float32 or wider. Letters: E channels, N states of a channel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from groundup.inside import INSIDES, repeated
from groundup.ops import kernels

SPAN = 64  # tokens: the states at their ends are kept for the backward
SPAN_STATES = 2**20  # of one span, so that a processor's cache holds what is computed from them
FLOPS = 6  # of a state and token: the decay, the input and the output each take a product and a sum


def reference(
    x: Float[Tensor, "B T E"],
    step: Float[Tensor, "B T E"],
    a: Float[Tensor, "N E"],
    b: Float[Tensor, "B T N"],
    c: Float[Tensor, "B T N"],
    *,
    before: Float[Tensor, "B N E"] | None = None,
    starts: Bool[Tensor, "B T"] | None = None,
) -> tuple[Float[Tensor, "B T E"], Float[Tensor, "B N E"]]:
    """Returns the outputs and the states after the last token: the definition.

    Args:
        x: inputs.
        step: how far each token moves its channels, positive; a step of zero changes nothing.
        a: the rate of each state, negative.
        b: how an input enters the states.
        c: how the states make an output.
        before: the states before the first token; None means zeros.
        starts: where a document begins, of which nothing before is remembered; None means nowhere.
    """
    h = x.new_zeros(x.shape[0], *a.shape, dtype=_wide(x)) if before is None else before
    outputs = []
    for t in range(x.shape[1]):
        if starts is not None:
            h = h.masked_fill(starts[:, t, None, None], 0.0)
        h = (step[:, t, None] * a).exp() * h + b[:, t, :, None] * (step[:, t] * x[:, t])[:, None]
        outputs.append((c[:, t, :, None] * h).sum(1))
    return torch.stack(outputs, 1).to(x.dtype), h


def scan(
    x: Float[Tensor, "B T E"],
    step: Float[Tensor, "B T E"],
    a: Float[Tensor, "N E"],
    b: Float[Tensor, "B T N"],
    c: Float[Tensor, "B T N"],
    *,
    before: Float[Tensor, "B N E"] | None = None,
    starts: Bool[Tensor, "B T"] | None = None,
) -> tuple[Float[Tensor, "B T E"], Float[Tensor, "B N E"]]:
    """Returns what `reference` does, a span of tokens at a time."""
    if kernels.scan_selectively(x, before=before):
        return kernels.selective_scan(x, step, a, b, c, starts=starts)
    wide = _wide(x)
    step, a, b, c = (t.to(wide) for t in (step, a, b, c))
    y, after, _ = _scan(x.to(wide), step, a, b, c, before, starts, torch.is_grad_enabled())
    return y.to(x.dtype), after


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _by_span(
    x: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor, before: Tensor | None, starts: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the outputs, the last states, and those before each span where they are kept."""
    y, after, kept = _empty(x, step, a, b, c, before, starts, keep)
    after.copy_(torch.zeros_like(after) if before is None else before)
    for rows, channels in _blocks(x, a):
        h = after[rows, :, channels]
        for number, span in enumerate(_spans(x)):
            if keep:
                kept[number, rows, :, channels] = h
            states, _ = _states(x, step, a, b, starts, h, (rows, span, channels))
            y[rows, span, channels] = (_by_token(c, rows, span)[:, :, None] @ states)[:, :, 0].transpose(0, 1)
            h = states[-1]
        after[rows, :, channels] = h
    return y, after, kept


def _backward_by_span(
    grad: Tensor,
    grad_after: Tensor,
    x: Tensor,
    step: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    starts: Tensor | None,
    kept: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Returns the gradients of inputs, steps, rates, both maps, and the first states.

    With g_t the gradient of h_t and p_t = exp(a d_t): g_t = c_t dy_t^T + p_{t+1} g_{t+1}.
    """
    grad_x, grad_step, grad_a, grad_b, grad_c = (torch.zeros_like(t) for t in (x, step, a, b, c))
    grad_before = grad_after.clone()
    for rows, channels in _blocks(x, a):
        carried = grad_before[rows, :, channels]  # p_{t+1} g_{t+1} of the span's last token
        for number, span in reversed(list(enumerate(_spans(x)))):
            here, first = (rows, span, channels), kept[number, rows, :, channels]
            states, decays = _states(x, step, a, b, starts, first, here)
            dy, u, moved = (_by_token(t, *here) for t in (grad, x, step))  # (t, r, e)
            enters, leaves = (_by_token(t, rows, span) for t in (b, c))  # (t, r, N)
            grad_c[rows, span] += (states @ dy[..., None])[..., 0].transpose(0, 1)
            g = leaves[..., None] * dy[:, :, None]  # (t, r, N, e)
            for later, decay in zip(reversed(g.unbind()), reversed(decays.unbind()), strict=True):
                later += carried
                carried = decay * later
            grad_b[rows, span] += (g @ (moved * u)[..., None])[..., 0].transpose(0, 1)
            entered = (enters[:, :, None] @ g)[:, :, 0]
            grad_x[here] = (entered * moved).transpose(0, 1)
            g.mul_(decays)  # then the gradient of a d_t
            g[1:].mul_(states[:-1])
            g[0].mul_(first)
            grad_a[:, channels] += (g * moved[:, :, None]).sum((0, 1))
            grad_step[here] = ((g * a[:, channels]).sum(2) + entered * u).transpose(0, 1)
        grad_before[rows, :, channels] = carried
    return grad_x, grad_step, grad_a, grad_b, grad_c, grad_before


def _states(
    x: Tensor,
    step: Tensor,
    a: Tensor,
    b: Tensor,
    starts: Tensor | None,
    h: Tensor,
    here: tuple[slice, slice, slice],
) -> tuple[Tensor, Tensor]:
    """Returns the states after each token of a span and the decays between them, both (t, r, N, e), from those before.

    Tokens are the first axis, so that the one thing that has to be done in order reads memory in order.
    """
    rows, span, channels = here
    moved = _by_token(step, *here)
    decays = (moved[:, :, None] * a[:, channels]).exp_()
    if starts is not None:
        decays.masked_fill_(_by_token(starts, rows, span)[:, :, None, None], 0.0)
    states = _by_token(b, rows, span)[..., None] * (moved * _by_token(x, *here))[:, :, None]
    for state, decay in zip(states.unbind(), decays.unbind(), strict=True):
        h = state.addcmul_(decay, h)
    return states, decays


def _by_token(x: Tensor, *here: slice) -> Tensor:
    """Returns a part of (B, T, ...) as (t, r, ...)."""
    return x[here].transpose(0, 1).contiguous()


def _spans(x: Tensor) -> list[slice]:
    return [slice(first, min(first + SPAN, x.shape[1])) for first in range(0, x.shape[1], SPAN)]


def _blocks(x: Tensor, a: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yields rows and channels whose states over a span are few enough to compute together."""
    span, size = min(SPAN, x.shape[1]), a.numel()
    channels = max(SPAN_STATES // (span * a.shape[0]), 1)
    rows = max(SPAN_STATES // (span * size), 1)
    for row in range(0, x.shape[0], rows):
        for channel in range(0, a.shape[1], channels):
            yield slice(row, row + rows), slice(channel, channel + channels)


_scan = torch.library.custom_op(
    "groundup::selective_scan",
    mutates_args=(),
    schema="(Tensor x, Tensor step, Tensor a, Tensor b, Tensor c, Tensor? before, Tensor? starts, bool keep)"
    " -> (Tensor, Tensor, Tensor)",
)(_by_span)
_scan_backward = torch.library.custom_op(
    "groundup::selective_scan_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor grad_after, Tensor x, Tensor step, Tensor a, Tensor b, Tensor c, Tensor? starts, "
    "Tensor kept) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)(_backward_by_span)


@_scan.register_fake
def _empty(
    x: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor, before: Tensor | None, starts: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    states = (x.shape[0], *a.shape)
    spans = (x.shape[1] + SPAN - 1) // SPAN if keep else 0
    return x.new_empty(x.shape), x.new_empty(states), x.new_empty(spans, *states)


@_scan_backward.register_fake
def _empty_gradients(
    grad: Tensor,
    grad_after: Tensor,
    x: Tensor,
    step: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    starts: Tensor | None,
    kept: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    like = torch.empty_like
    return like(x), like(step), like(a), like(b), like(c), like(grad_after)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, step, a, b, c, before, starts, _ = inputs
    ctx.continues = before is not None
    ctx.save_for_backward(x, step, a, b, c, starts, output[2])


def _backward(ctx: Any, grad: Tensor, grad_after: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    x, step, a, b, c, starts, kept = ctx.saved_tensors
    *grads, grad_before = _scan_backward(grad, grad_after, x, step, a, b, c, starts, kept)
    return *grads, grad_before if ctx.continues else None, None, None


_scan.register_autograd(_backward, setup_context=_save)


@register_flop_formula(torch.ops.groundup.selective_scan)
def _flops(x: tuple[int, ...], step: tuple[int, ...], a: tuple[int, ...], *_: Any, **__: Any) -> int:
    return FLOPS * x[0] * x[1] * a[0] * a[1]


@register_flop_formula(torch.ops.groundup.selective_scan_backward)
def _backward_flops(
    grad: tuple[int, ...], after: tuple[int, ...], x: tuple[int, ...], step: Any, a: tuple[int, ...], *_: Any, **__: Any
) -> int:
    """Two products for each of the forward's; states that are made again are work done, not work needed."""
    return 2 * _flops(x, x, a)


def _inside(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    """One span of one block, which stands for all."""
    x, step, a, b, c, _, starts, keep = inputs
    out = _empty(*inputs)
    rows, span, channels, count = _first(x, a)
    with repeated(count):
        x, step, b, c, starts = (_cut(t, rows, span) for t in (x, step, b, c, starts))
        _by_span(x[:, :, channels], step[:, :, channels], a[:, channels], b, c, None, starts, keep)
    return out


def _inside_backward(*inputs: Any) -> tuple[Tensor, ...]:
    grad, after, x, step, a, b, c, starts, kept = inputs
    out = _empty_gradients(*inputs)
    rows, span, channels, count = _first(x, a)
    with repeated(count):
        grad, x, step, b, c, starts = (_cut(t, rows, span) for t in (grad, x, step, b, c, starts))
        grad, x, step = (t[:, :, channels] for t in (grad, x, step))
        after, kept = after[rows, :, channels], kept[:1, rows, :, channels]
        _backward_by_span(grad, after, x, step, a[:, channels], b, c, starts, kept)
    return out


def _first(x: Tensor, a: Tensor) -> tuple[slice, slice, slice, int]:
    """Returns rows, span and channels of the first block, and how many there are."""
    blocks, spans = list(_blocks(x, a)), _spans(x)
    (rows, channels), span = blocks[0], spans[0]
    return rows, span, channels, len(blocks) * len(spans)


def _cut(x: Tensor | None, rows: slice, span: slice) -> Any:
    return None if x is None else x[rows, span]


INSIDES[torch.ops.groundup.selective_scan.default] = _inside
INSIDES[torch.ops.groundup.selective_scan_backward.default] = _inside_backward
