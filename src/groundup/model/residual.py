"""The one residual rule.

    x <- out(x + scale * post(mixer(pre(x))))

Pre-norm (pre), post-norm (out), sandwich (pre and post) and reordered norms (post alone) are values of it.
Source: He et al. 2015 (arXiv:1512.03385); the places of the norm: Xiong et al. 2020 (arXiv:2002.04745).
"""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor, nn

from groundup.context import Context
from groundup.devices import for_products
from groundup.errors import SpecError
from groundup.mixers.base import Mixer, MixerSpec
from groundup.parts.linear import dropout
from groundup.parts.norm import NoNorm, Norm, RMSNorm
from groundup.specs import ShareBelowOne, Spec
from groundup.state import State


class Residual(Spec):
    """A mixer and where its norms stand.

    Attributes:
        mixer: what is computed.
        pre: the norm of the mixer's input.
        post: the norm of its output.
        out: the norm of the sum.
        scale: what the output is multiplied by before it is added.
        dropout: the chance of each value of the output to be dropped in training.
    """

    mixer: MixerSpec = dataclasses.field(kw_only=False)
    pre: Norm = RMSNorm()
    post: Norm = NoNorm()
    out: Norm = NoNorm()
    scale: float = 1.0
    dropout: ShareBelowOne = 0.0

    def build(self, width: int) -> ResidualPart:
        """Returns the module for a stream of ``width``."""
        return ResidualPart(self, width)


class ResidualPart(nn.Module):
    """The module of `Residual`."""

    mixer: Mixer

    def __init__(self, spec: Residual, width: int) -> None:
        super().__init__()
        self.pre = spec.pre.build(width)
        self.mixer = spec.mixer.build(width)
        if not isinstance(self.mixer, Mixer):
            kind, made = type(spec.mixer).__name__, type(self.mixer).__name__
            raise SpecError(f"{kind}.build returns {made}; expected a groundup.Mixer")
        self.post = spec.post.build(width)
        self.dropout = dropout(spec.dropout)
        self.out = spec.out.build(width)
        self.scale = spec.scale

    def forward(self, x: Float[Tensor, "B T D"], ctx: Context, state: State | None = None) -> Float[Tensor, "B T D"]:
        """Returns the stream after this part."""
        return self.out(torch.add(x, self.delta(x, ctx, state), alpha=self.scale))

    def delta(self, x: Float[Tensor, "B T D"], ctx: Context, state: State | None = None) -> Float[Tensor, "B T D"]:
        """Returns what this part adds to the stream, before the scale."""
        return self.dropout(self.post(self.mixer(for_products(self.pre(x)), ctx, state)))
