"""Mixes of each token with the one before it, each with a weight of its own for each channel.

    y_i,t = x_t + w_i * (x_{t-1} - x_t)
    dw_i = sum_t dy_i,t * (x_{t-1} - x_t);   dx_t = sum_i (1 - w_i) * dy_i,t + w_i * dy_i,t+1

Source: Peng et al. 2023 (RWKV, arXiv:2305.13048), section 3.1.1. Letters: D width, W mixes.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F


def reference(
    x: Float[Tensor, "B T D"],
    before: Float[Tensor, "B 1 D"],
    weights: Float[Tensor, "W D"],
    *,
    starts: Bool[Tensor, "B T"] | None = None,
) -> tuple[Float[Tensor, "B T D"], ...]:
    """Returns the mixes: the definition.

    Args:
        x: the tokens.
        before: the token before the first.
        weights: what of each mix is the token before.
        starts: where a document begins, before which there are zeros; None means nowhere.
    """
    past = torch.cat([before, x], 1)[:, :-1]
    if starts is not None:
        past = past.masked_fill(starts[..., None], 0.0)
    return tuple(torch.lerp(x, past, weight) for weight in weights)


def mixed(
    x: Float[Tensor, "B T D"],
    before: Float[Tensor, "B 1 D"],
    weights: Float[Tensor, "W D"],
    *,
    starts: Bool[Tensor, "B T"] | None = None,
) -> tuple[Float[Tensor, "B T D"], ...]:
    """Returns what `reference` does, with one backward for all mixes."""
    return _Mixed.apply(x, before, weights, starts)


class _Mixed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, before: Tensor, weights: Tensor, starts: Tensor | None) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x, before, weights, starts)
        way = _way(x, before, starts)
        return tuple(torch.addcmul(x, way, weight) for weight in weights)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        x, before, weights, starts = ctx.saved_tensors
        total, of_past = grad_outputs[0], grad_outputs[0] * weights[0]
        for grad, weight in zip(grad_outputs[1:], weights[1:], strict=True):
            total, of_past = total + grad, torch.addcmul(of_past, grad, weight)
        of_x, way = total - of_past, _way(x, before, starts)
        if starts is not None:
            of_past = of_past.masked_fill(starts[..., None], 0.0)
        of_both = F.pad(of_past, (0, 0, 0, 1))  # of the token before the first, and of all but the last
        of_weights = torch.stack([(grad * way).sum((0, 1)) for grad in grad_outputs])
        return of_x + of_both[:, 1:], of_both[:, :1], of_weights, None


def _way(x: Tensor, before: Tensor, starts: Tensor | None) -> Tensor:
    """Returns what lies between each token and the one before it."""
    past = torch.cat([before, x], 1)[:, :-1]
    return (past if starts is None else past.masked_fill(starts[..., None], 0.0)) - x
