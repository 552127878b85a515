"""The short convolution before a recurrence: what a token and the few before it say, each channel by itself.

    y_t = b + sum_j w_j x_{t-W+1+j}

Source: Gu and Dao 2023 (Mamba, arXiv:2312.00752), section 3.4. Letters: C channels, W taps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from groundup.context import Context
from groundup.errors import SpecError
from groundup.ops.causal_conv import causal_conv
from groundup.state import State


@dataclass
class ConvState(State):
    """The last W - 1 inputs of a short convolution; zeros before the first."""

    tail: Float[Tensor, "B J C"]

    @property
    def rewinds(self) -> bool:
        """False: what has been pushed out cannot come back."""
        return False

    def push(self, x: Float[Tensor, "B T C"], ctx: Context) -> Float[Tensor, "B J C"]:
        """Returns the inputs before ``x``, and remembers the last real ones of both."""
        kept, tokens = self.tail.shape[1], x.shape[1]
        every = torch.cat([self.tail, x.to(self.tail.dtype)], 1)
        if ctx.lengths is None:
            last = every[:, tokens:]
        else:
            places = ctx.lengths[:, None, None] + torch.arange(kept, device=x.device)[:, None]
            last = every.gather(1, places.expand(-1, -1, x.shape[2]))
        self.tail.copy_(last)
        return every[:, :kept]


class ShortConv(nn.Module):
    """A causal convolution of each channel by itself over the last ``taps`` tokens.

    The first weights are uniform in +-taps^-1/2, as in PyTorch's convolutions; the bias starts at zero.
    """

    def __init__(self, channels: int, taps: int, *, bias: bool) -> None:
        super().__init__()
        if taps < 1:
            raise SpecError(f"conv={taps} must be at least 1")
        self.weight = nn.Parameter(torch.empty(channels, taps))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def draw(self, generator: torch.Generator) -> None:
        """Draws the first weights."""
        bound = self.weight.shape[1] ** -0.5
        nn.init.uniform_(self.weight, -bound, bound, generator=generator)

    def forward(
        self, x: Float[Tensor, "B T C"], ctx: Context, state: ConvState | None = None
    ) -> Float[Tensor, "B T C"]:
        """Returns the convolution; a state is continued, in place."""
        before = None if state is None else state.push(x, ctx)
        return causal_conv(x, self.weight, self.bias, before=before, starts=ctx.starts)

    def new_state(
        self, rows: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> ConvState:
        """Returns the state of ``rows`` rows that have read nothing."""
        channels, taps = self.weight.shape
        return ConvState(tail=torch.zeros(rows, taps - 1, channels, device=device, dtype=dtype))
