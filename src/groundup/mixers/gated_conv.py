"""Gated convolution: what a token and the few before it say together, gated by another map of the same.

    y_t = (W X_t + b) * sigmoid(V X_t + c),   X_t = x_{t-taps+1}, ..., x_t beside each other, zeros before a document

Source: Dauphin et al. 2017 (arXiv:1612.08083), equation 1. Left out: weight normalisation, and the adaptive softmax of
the published models, whose embeddings are also narrower than their layers. Letters: J the tokens kept, taps - 1.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from groundup.context import Context
from groundup.mixers.base import Mixer, MixerSpec
from groundup.parts.conv import ConvState
from groundup.parts.linear import Linear
from groundup.specs import Size


class GatedConv(MixerSpec):
    """A causal convolution over all channels with gated linear units.

    Attributes:
        taps: the tokens that it sees, the token itself included.
        bias: whether both maps have a bias.
    """

    taps: Size
    bias: bool = True

    def build(self, width: int) -> GatedConvMixer:
        """Returns the module for a stream of ``width``."""
        return GatedConvMixer(self, width)


class GatedConvMixer(Mixer):
    """The module of `GatedConv`; its maps read the tokens of a window beside each other, the oldest first."""

    def __init__(self, spec: GatedConv, width: int) -> None:
        super().__init__()
        self.taps, self.width = spec.taps, width
        self.value = Linear(spec.taps * width, width, bias=spec.bias, role="out")
        self.gate = Linear(spec.taps * width, width, bias=spec.bias, role="in")

    def forward(  # pyrefly: ignore[bad-override]: a mixer is given the kind of state that it makes
        self, x: Float[Tensor, "B T D"], ctx: Context, state: ConvState | None = None
    ) -> Float[Tensor, "B T D"]:
        """Returns the gated convolution; a state holds the tokens before."""
        kept = self.taps - 1
        before = x.new_zeros(x.shape[0], kept, self.width) if state is None else state.push(x, ctx).to(x.dtype)
        windows = torch.cat([before, x], 1).unfold(1, self.taps, 1).transpose(2, 3)  # (B, T, taps, D)
        if ctx.starts is not None:
            document = F.pad(ctx.starts.cumsum(1), (kept, 0))
            windows = windows * (document.unfold(1, self.taps, 1) == document[:, kept:, None])[..., None]
        windows = windows.flatten(2)
        return self.value(windows) * self.gate(windows).sigmoid()

    def new_state(
        self, rows: int, max_len: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> ConvState:
        """Returns the state of ``rows`` rows that have read nothing; it does not grow."""
        return ConvState(tail=torch.zeros(rows, self.taps - 1, self.width, device=device, dtype=dtype))
