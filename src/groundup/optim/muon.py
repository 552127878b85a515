"""Muon: momentum whose matrices are made orthogonal before they are applied.

    B <- lerp(B, G, 1 - momentum);   U = lerp(G, B, momentum)
    W <- (1 - lr decay) W - lr sqrt(max(1, outputs/inputs)) NS(U)

NS is five steps of the Newton-Schulz iteration X <- a X + (b A + c A^2) X with A = X X^T, which moves all singular
values of X towards 1 (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

This is `torch.optim.Muon`, whose products always run in bfloat16, with the dtype left to the caller: on a processor
without bfloat16 arithmetic torch multiplies such matrices at 3 GFLOP/s where float32 has 170 (two cores), 35 s
instead of 0.6 s a step for a model of six layers of width 384. In bfloat16 the two agree to the bit. Matrices of one
shape are not batched: that was no faster in bfloat16 and slower in float32, for the time is spent in the products.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024: the steepest slope at zero that does not diverge
ITERATIONS = 5
TINY = 1e-7  # keeps a gradient of zero from a division by zero


def orthogonal(matrix: Tensor, *, products: torch.dtype) -> Tensor:
    """Returns the matrix with its singular values moved to about 1 (0.5 to 1.3), in the dtype of the products."""
    a, b, c = COEFFICIENTS
    tall = matrix.size(0) > matrix.size(1)
    x = matrix.T if tall else matrix
    x = x.to(products)
    x = x / x.norm().clamp(min=TINY)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


class MuonOptimizer(torch.optim.Optimizer):
    """The optimizer of `groundup.optim.optimizers.Muon`; every parameter is a matrix or a stack of them."""

    def __init__(
        self,
        parameters: Sequence[tuple[str, nn.Parameter]],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        products: torch.dtype,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.products = products

    @torch.no_grad()
    def step(self) -> None:  # pyrefly: ignore[bad-override]: torch's closure is for optimizers that search a line
        """Moves every matrix that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, group)

    def _move(self, weight: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        momentum = state["momentum_buffer"].lerp_(grad, 1 - group["momentum"])
        step = grad.lerp(momentum, group["momentum"])
        outputs, inputs = weight.shape[-2:]
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        rate = group["lr"] * math.sqrt(max(1, outputs / inputs))
        for matrix, part in zip(_matrices(weight), _matrices(step), strict=True):
            matrix.add_(orthogonal(part, products=self.products), alpha=-rate)


def _matrices(stack: Tensor) -> Sequence[Tensor]:
    """Views a matrix, or each of a stack of them."""
    return stack.unbind() if stack.ndim > 2 else (stack,)
