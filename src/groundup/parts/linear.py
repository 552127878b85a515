"""The one linear map of the package, alone or stacked: adapters, quantization and initialisation are walks over it."""

from __future__ import annotations

import math
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.errors import SpecError
from groundup.ops import experts as ops

Role = Literal["in", "out", "head"]

MOST_WEIGHTS = 2**48  # of one matrix; torch cannot count beyond 2**63 bytes


class Linear(nn.Linear):
    """y = x W^T + b with an uninitialised W, and the role of the map in its layer.

    Attributes:
        role: ``in`` reads the residual stream, ``out`` writes to it, ``head`` makes logits. Initialisation and
            sharding tables are keyed by it.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool, role: Role) -> None:
        self.role = role
        _check_numel(inputs, outputs)
        super().__init__(inputs, outputs, bias=bias)

    def reset_parameters(self) -> None:
        """Leaves the weights as they are: `groundup.parts.init` fills them, or a file does."""
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations of the forward per token: a product and a sum for each weight."""
        return 2 * self.in_features * self.out_features


class ExpertLinear(nn.Module):
    """y_n = W_e x_n + b_e, e the expert of row n: one map for each expert, stacked, with uninitialised W.

    Attributes:
        weight: of all experts, (E, outputs, inputs).
        bias: of all experts, (E, outputs), or None.
        role: as that of `Linear`.
        active: through how many of the experts a token goes.
    """

    def __init__(self, inputs: int, outputs: int, *, experts: int, active: int, role: Role, bias: bool = False) -> None:
        super().__init__()
        _check_numel(experts, outputs, inputs)
        self.in_features, self.out_features, self.experts = inputs, outputs, experts
        self.role: Role = role
        self.active = active
        self.weight = nn.Parameter(torch.empty(experts, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(experts, outputs)) if bias else None

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations of the forward per token: those of the active experts."""
        return 2 * self.active * self.in_features * self.out_features

    @property
    def idle_params(self) -> int:
        """The parameters that take no part in a token."""
        return (self.experts - self.active) * sum(weight[0].numel() for weight in self.parameters())

    def forward(
        self, x: Float[Tensor, "R D"], expert: Int[Tensor, "R"], ends: Int[Tensor, "E"]
    ) -> Float[Tensor, "R F"]:
        """Returns the maps of rows that are sorted by ``expert``; the rows of expert e end before ``ends[e]``."""
        y = ops.grouped(x, self.weight, ends)
        return y if self.bias is None else y + self.bias.to(y.dtype).index_select(0, expert)

    def extra_repr(self) -> str:
        """Returns the sizes, as `Linear` shows its own."""
        return f"experts={self.experts}, in_features={self.in_features}, out_features={self.out_features}"


@runtime_checkable
class Lender(Protocol):
    """A module whose table of vectors others read too."""

    num_embeddings: int
    embedding_dim: int

    @property
    def table(self) -> Tensor:
        """The vectors, (V, D)."""


class TiedHead(nn.Module):
    """Logits from the token embedding's own weights (Press and Wolf 2017, arXiv:1608.05859); owns at most a bias.

    Attributes:
        bias: of the logits, (V,); a parameter, a buffer where it is not trained, or None.
    """

    def __init__(self, embed: Lender, *, bias: Float[Tensor, "V"] | None) -> None:
        super().__init__()
        self._embed = (embed,)  # in a tuple, so that the embedding stays the only owner of its weights
        self.bias = bias

    @property
    def weight(self) -> Tensor:
        """The embedding's weights, (V, D)."""
        return self._embed[0].table

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations of the forward per token."""
        return 2 * self.weight.numel()

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (..., V) of hidden states (..., D)."""
        return F.linear(x, self.weight, self.bias)


Map = Linear | ExpertLinear  # what has weights and a role
Counted = Map | TiedHead  # what says its flops_per_token


class Embedding(nn.Embedding):
    """A table of vectors with uninitialised weights: `groundup.parts.init` fills them, or a file does."""

    def __init__(self, entries: int, width: int) -> None:
        _check_numel(entries, width)
        super().__init__(entries, width)

    def reset_parameters(self) -> None:
        """Leaves the weights as they are."""


def _check_numel(*shape: int) -> None:
    if math.prod(shape) > MOST_WEIGHTS:
        sizes = " by ".join(f"{size:,}" for size in shape)
        raise SpecError(f"a matrix of {sizes} weights is more than any machine can hold; choose smaller sizes")


def dropout(chance: float) -> nn.Module:
    """Returns a module that drops each value with this chance in training, or one that costs nothing at zero."""
    return nn.Dropout(chance) if chance else nn.Identity()
