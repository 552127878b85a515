"""The square of what is above zero.

    y = max(x, 0)^2;   dx = 2 max(x, 0) dy

Source: So et al. 2021 (Primer, arXiv:2109.08668), section 4.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def reference(x: Float[Tensor, "*size"]) -> Float[Tensor, "*size"]:
    """Returns the squares: the definition."""
    return F.relu(x).square()


def squared_relu(x: Float[Tensor, "*size"]) -> Float[Tensor, "*size"]:
    """Returns what `reference` does, whose backward would also look for what is above zero."""
    return _SquaredReLU.apply(x)


class _SquaredReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        above = F.relu(x)
        ctx.save_for_backward(above)
        return above * above

    @staticmethod
    @once_differentiable
    def backward(  # pyrefly: ignore[bad-override]: the decorator hides the names
        ctx: Any, *grad_outputs: Any
    ) -> Any:
        return (grad_outputs[0] * ctx.saved_tensors[0]).mul_(2)
