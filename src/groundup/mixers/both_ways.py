"""A recurrence over a text in both directions, for encoders: y = forward(x) + reversed(backward(reversed(x))).

The sum of two linear maps of both outputs is one of them side by side. Source: Schuster and Paliwal 1997 (IEEE
Transactions on Signal Processing 45:2673); in translation, Bahdanau et al. 2015 (arXiv:1409.0473), section 3.2.
"""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.context import Context
from groundup.mixers.base import Mixer, MixerSpec
from groundup.mixers.recurrent import Recurrent
from groundup.state import State


class BothWays(MixerSpec):
    """A recurrent network over a text, and another of the same sizes over the reversed text.

    Attributes:
        mixer: what reads from left to right.
    """

    mixer: Recurrent = dataclasses.field(kw_only=False)

    @property
    def causal(self) -> bool:
        """False: tokens see what comes after them."""
        return False

    def build(self, width: int) -> BothWaysMixer:
        """Returns the module for a stream of ``width``."""
        return BothWaysMixer(self, width)


class BothWaysMixer(Mixer):
    """The module of `BothWays`; both of its mixers count their own operations."""

    def __init__(self, spec: BothWays, width: int) -> None:
        super().__init__()
        self.ahead = spec.mixer.build(width)
        self.back = spec.mixer.build(width)

    def forward(self, x: Float[Tensor, "B T D"], ctx: Context, state: State | None = None) -> Float[Tensor, "B T D"]:
        """Returns the sum of what both make of the stream."""
        place = ctx.once("reversed", lambda: _reversed(ctx))
        at = place[..., None].expand_as(x)
        segments = None if ctx.segments is None else ctx.segments.gather(1, place)
        back = Context.whole(x, segments=segments)
        return self.ahead(x, ctx) + self.back(x.gather(1, at), back).gather(1, at)


def _reversed(ctx: Context) -> Int[Tensor, "B T"]:
    """The place of each token when the real tokens of each row are reversed and padding stays."""
    rows, tokens = ctx.positions.shape
    place = torch.arange(tokens, device=ctx.positions.device).expand(rows, tokens)
    if ctx.lengths is None:
        return place.flip(1)
    lengths = ctx.lengths[:, None]
    return torch.where(place < lengths, lengths - 1 - place, place)
