"""Mamba: a state space whose step, input and output depend on the token, behind a short convolution and under a gate.

    x = act(conv(W_x u));   d, b, c from x;   h_t = exp(a d_t) * h_{t-1} + b_t (d_t x_t)^T
    out = W_o ((c_t^T h_t + D * x) * silu(W_g u))

Source: Gu and Dao 2023 (arXiv:2312.00752), section 3.4 and figure 3; norms of what d, b and c are made from: Lieber et
al. 2024 (Jamba, arXiv:2403.19887), section 6.4. Letters: E inner channels, N states of a channel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.context import Context
from groundup.mixers.base import Mixer, MixerSpec
from groundup.ops import selective_scan
from groundup.parts.act import Act, activation
from groundup.parts.conv import ConvState, ShortConv
from groundup.parts.linear import Linear
from groundup.parts.norm import NoNorm, Norm
from groundup.parts.rates import Rates, Steps, check_steps
from groundup.specs import Size
from groundup.state import State


class Mamba(MixerSpec):
    """A selective state space.

    Attributes:
        states: the states of each inner channel.
        rank: the width from which steps are made.
        expand: how many times the width of the stream the inner channels are.
        conv: taps of the convolution.
        act: the activation after it, a key of `groundup.parts.act.ACTIVATIONS`.
        bias: whether the maps from and to the stream have a bias.
        conv_bias: whether the convolution has one.
        steps: between which steps the first ones are drawn.
        norm: the norm, one each, of what steps are made from, of b and of c.
    """

    states: Size
    rank: Size
    expand: Size = 2
    conv: Size = 4
    act: Act = "silu"
    bias: bool = False
    conv_bias: bool = True
    steps: tuple[float, float] = (1e-3, 1e-1)
    norm: Norm = NoNorm()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.steps)

    def build(self, width: int) -> MambaMixer:
        """Returns the module for a stream of ``width``."""
        return MambaMixer(self, width)


@dataclass
class MambaState(State):
    """The last inputs of the convolution, and the states, which are long sums in float32 or wider."""

    conv: ConvState
    h: Float[Tensor, "B N E"]


class MambaMixer(Mixer):
    """The module of `Mamba`."""

    def __init__(self, spec: Mamba, width: int) -> None:
        super().__init__()
        inner = spec.expand * width
        self.x = Linear(width, inner, bias=spec.bias, role="in")
        self.gate = Linear(width, inner, bias=spec.bias, role="in")
        self.conv = ShortConv(inner, spec.conv, bias=spec.conv_bias)
        self.act = activation(spec.act)
        self.select = Linear(inner, spec.rank + 2 * spec.states, bias=False, role="in")
        self.step = Linear(spec.rank, inner, bias=False, role="in")
        self.steps = Steps(inner, between=spec.steps)
        self.rates = Rates(inner, spec.states)
        self.skip = nn.Parameter(torch.ones(inner))
        self.out = Linear(inner, width, bias=spec.bias, role="out")
        self.sizes = (spec.rank, spec.states, spec.states)
        self.step_norm, self.b_norm, self.c_norm = (spec.norm.build(size) for size in self.sizes)

    def draw(self, generator: torch.Generator) -> None:
        """Draws the map of the steps, so that they keep the spread of what they are made from."""
        bound = self.sizes[0] ** -0.5
        nn.init.uniform_(self.step.weight, -bound, bound, generator=generator)

    def forward(  # pyrefly: ignore[bad-override]: a mixer is given the kind of state that it makes
        self, x: Float[Tensor, "B T D"], ctx: Context, state: MambaState | None = None
    ) -> Float[Tensor, "B T D"]:
        """Returns the mixed stream; a state is continued, in place."""
        gate = self.gate(x)
        x = self.act(self.conv(self.x(x), ctx, None if state is None else state.conv))  # (B, T, E)
        low, b, c = self.select(x).split(self.sizes, -1)
        step, b, c = self.steps(self.step(self.step_norm(low)), ctx.real), self.b_norm(b), self.c_norm(c)
        before = None if state is None else state.h
        y, after = selective_scan.scan(x, step, self.rates().mT, b, c, before=before, starts=ctx.starts)
        if state is not None:
            state.h.copy_(after)
        return self.out(torch.addcmul(y, self.skip, x) * F.silu(gate))

    def new_state(
        self, rows: int, max_len: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> MambaState:
        """Returns the state of ``rows`` rows that have read nothing, of the same size for any ``max_len``."""
        wide = torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)
        inner, states = self.rates.log.shape
        return MambaState(
            conv=self.conv.new_state(rows, device=device, dtype=dtype),
            h=torch.zeros(rows, states, inner, device=device, dtype=wide),
        )

    def mix_flops(self, tokens: int, seen: int) -> int:
        """Returns the operations of the recurrence, `groundup.ops.selective_scan.FLOPS` for each state and token."""
        return selective_scan.FLOPS * tokens * self.rates.log.numel()
