"""Norms of the last axis, computed in float32.

LayerNorm(x) = weight * (x - mean) / sqrt(var + eps) + bias     Ba et al. 2016 (arXiv:1607.06450)
RMSNorm(x)   = weight * x / sqrt(mean(x^2) + eps)               Zhang and Sennrich 2019 (arXiv:1910.07467)
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from groundup.ops import rms_norm
from groundup.specs import NotNegative, Spec


class Norm(Spec, abstract=True):
    """What a residual part does to scale; ``build(width)`` gives the module."""

    def build(self, width: int) -> nn.Module:
        """Returns the module for vectors of ``width``."""
        raise NotImplementedError(type(self).__name__)


class LayerNorm(Norm):
    """Centres and scales each vector, with a learnt weight and, unless ``bias`` is false, a learnt bias."""

    eps: NotNegative = 1e-5
    bias: bool = True

    def build(self, width: int) -> nn.Module:
        """Returns the module for vectors of ``width``."""
        return nn.LayerNorm(width, eps=self.eps, bias=self.bias)


class RMSNorm(Norm):
    """Scales each vector to a root mean square of one, with a learnt weight."""

    eps: NotNegative = 1e-6

    def build(self, width: int) -> nn.Module:
        """Returns the module for vectors of ``width``."""
        return ScaledRMS(width, eps=self.eps)


class ScaledRMS(nn.RMSNorm):
    """The module of `RMSNorm`, with the fastest kernel that the device has."""

    def forward(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        """Returns the normed vectors."""
        assert self.eps is not None
        return rms_norm.rms_norm(x, self.weight, eps=self.eps)


class NoNorm(Norm):
    """Leaves vectors as they are."""

    def build(self, width: int) -> nn.Module:
        """Returns the identity."""
        return nn.Identity()
