"""Pieces of a long text that lie over each other: autograd alone would make zeros as long as the text for each.

y_i = x[..., a_i : b_i, :];   dx = the sum of all dy_i, each in its place
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def reference(x: Float[Tensor, "*rows T K"], places: Sequence[slice]) -> tuple[Tensor, ...]:
    """Returns the tokens at each of the places: the definition."""
    return tuple(x[..., place, :] for place in places)


def slices(x: Float[Tensor, "*rows T K"], places: Sequence[slice]) -> tuple[Tensor, ...]:
    """Returns what `reference` does; the gradients of all pieces are added up in one tensor."""
    return _Slices.apply(x, tuple(places))


class _Slices(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, places: tuple[slice, ...]) -> tuple[Tensor, ...]:
        ctx.shape, ctx.places = x.shape, places
        return reference(x, places)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        grad = grad_outputs[0].new_zeros(ctx.shape)
        for place, part in zip(ctx.places, grad_outputs, strict=True):
            grad[..., place, :] += part
        return grad, None
