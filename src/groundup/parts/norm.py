"""Norms of the last axis, computed in float32.

LayerNorm(x) = weight * (x - mean) / sqrt(var + eps) + bias     Ba et al. 2016 (arXiv:1607.06450)
RMSNorm(x)   = weight * x / sqrt(mean(x^2) + eps)               Zhang and Sennrich 2019 (arXiv:1910.07467)
"""

from __future__ import annotations

import dataclasses

from jaxtyping import Float
from torch import Tensor, nn

from groundup.errors import SpecError
from groundup.ops import rms_norm
from groundup.specs import NotNegative, Spec


class NormOfHeads(Spec, abstract=True):
    """What is done to the scale of queries, keys or readings, which have heads."""

    def of_heads(self, heads: int, head_width: int) -> nn.Module:
        """Returns the module for vectors of heads, (B, T, heads, head_width)."""
        raise NotImplementedError(type(self).__name__)


class Norm(NormOfHeads, abstract=True):
    """What a residual part does to scale; ``build(width)`` gives the module."""

    def build(self, width: int) -> nn.Module:
        """Returns the module for vectors of ``width``."""
        raise NotImplementedError(type(self).__name__)

    def of_heads(self, heads: int, head_width: int) -> nn.Module:
        """Returns the module for vectors of heads, each by itself."""
        return self.build(head_width)


class LayerNorm(Norm):
    """Centres and scales each vector.

    Attributes:
        eps: what is added to the variance.
        bias: whether a learnt bias is added.
        weight: whether the result is multiplied by a learnt weight; without one there is no bias either.
    """

    eps: NotNegative = 1e-5
    bias: bool = True
    weight: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bias and not self.weight:
            raise SpecError("LayerNorm(weight=False) has no bias either; add bias=False")

    def build(self, width: int) -> nn.Module:
        """Returns the module for vectors of ``width``."""
        return nn.LayerNorm(width, eps=self.eps, elementwise_affine=self.weight, bias=self.bias)


class RMSNorm(Norm):
    """Scales each vector to a root mean square of one, with a learnt weight.

    Attributes:
        eps: what is added to the mean square.
        offset: what is added to the weight before it is used: 1 where zero stands for no change (Gemma).
    """

    eps: NotNegative = 1e-6
    offset: float = 0.0

    def build(self, width: int) -> nn.Module:
        """Returns the module for vectors of ``width``."""
        return OffsetRMS(width, eps=self.eps, offset=self.offset) if self.offset else ScaledRMS(width, eps=self.eps)


class ScaledRMS(nn.RMSNorm):
    """The module of `RMSNorm`, with the fastest kernel that the device has."""

    def forward(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        """Returns the normed vectors."""
        assert self.eps is not None
        return rms_norm.rms_norm(x, self.weight, eps=self.eps)


class OffsetRMS(ScaledRMS):
    """The module of `RMSNorm` whose weight starts at ``1 - offset``."""

    def __init__(self, width: int, *, eps: float, offset: float) -> None:
        self.offset = offset
        super().__init__(width, eps=eps)

    def reset_parameters(self) -> None:
        """Starts the weight where vectors keep a root mean square of one."""
        nn.init.constant_(self.weight, 1 - self.offset)

    def forward(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        """Returns the normed vectors."""
        assert self.eps is not None
        return rms_norm.rms_norm(x, self.weight + self.offset, eps=self.eps)


class AcrossHeads(NormOfHeads):
    """Norms the queries, and the keys, of all heads as one vector (OLMo 2, arXiv:2501.00656, section 2.1)."""

    norm: Norm = dataclasses.field(kw_only=False)

    def of_heads(self, heads: int, head_width: int) -> nn.Module:
        """Returns the module for vectors of heads, (B, T, heads, head_width)."""
        return FlatNorm(self.norm.build(heads * head_width))


class FlatNorm(nn.Module):
    """The module of `AcrossHeads`."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Float[Tensor, "B T H K"]) -> Float[Tensor, "B T H K"]:
        """Returns the normed queries or keys."""
        return self.norm(x.flatten(-2)).view_as(x)


class HeadNorm(nn.GroupNorm):
    """Centres and scales what each head read, with a weight and a bias of every value."""

    def forward(  # pyrefly: ignore[bad-override]: readings of heads, not images
        self, x: Float[Tensor, "B T H K"]
    ) -> Float[Tensor, "B T H K"]:
        """Returns the normed readings."""
        return super().forward(x.flatten(2).flatten(0, 1)).view_as(x)


class NoNorm(Norm):
    """Leaves vectors as they are."""

    def build(self, width: int) -> nn.Module:
        """Returns the identity."""
        return nn.Identity()
