"""Mamba-2: heads of states with one decay each, which depends on the token, under a gate and a norm.

    x, b, c = act(conv(W_m u));   d from u;   h_t = exp(a d_t) h_{t-1} + (d_t x_t) b_t^T
    out = W_o N((h_t c_t + D * x) * silu(W_g u)),   N an RMSNorm of each group of channels

Source: Dao and Gu 2024 (arXiv:2405.21060), section 7 and figure 6. Letters: H heads, P width of a head, G groups of
heads that share b and c, N states of a channel, E = H P inner channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.context import Context
from groundup.errors import SpecError
from groundup.mixers.base import Mixer, MixerSpec
from groundup.ops import rms_norm, ssd
from groundup.parts.act import Act, activation
from groundup.parts.conv import ConvState, ShortConv
from groundup.parts.linear import Linear
from groundup.parts.rates import DrawnRates, Steps, check_steps
from groundup.specs import NotNegative, Size
from groundup.state import State


class Mamba2(MixerSpec):
    """A state space with one decay a head.

    Attributes:
        heads: heads of states.
        head_width: the channels of one head.
        states: the states of each channel.
        groups: groups of heads, each of which shares how inputs enter and outputs leave; its channels share a norm.
        conv: taps of the convolution.
        act: the activation after it, a key of `groundup.parts.act.ACTIVATIONS`.
        bias: whether the maps from and to the stream have a bias.
        conv_bias: whether the convolution has one.
        eps: of the norm.
        steps: between which steps the first ones are drawn.
        least: the smallest step of a token.
    """

    heads: Size
    head_width: Size
    states: Size
    groups: Size = 1
    conv: Size = 4
    act: Act = "silu"
    bias: bool = False
    conv_bias: bool = True
    eps: NotNegative = 1e-5
    steps: tuple[float, float] = (1e-3, 1e-1)
    least: NotNegative = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.steps)
        if self.heads % self.groups:
            raise SpecError(f"heads={self.heads} is not a multiple of groups={self.groups}; change one of them")

    def build(self, width: int) -> Mamba2Mixer:
        """Returns the module for a stream of ``width``."""
        return Mamba2Mixer(self, width)


@dataclass
class Mamba2State(State):
    """The last inputs of the convolution, and the states, which are long sums in float32 or wider."""

    conv: ConvState
    h: Float[Tensor, "B H P N"]


class Mamba2Mixer(Mixer):
    """The module of `Mamba2`."""

    def __init__(self, spec: Mamba2, width: int) -> None:
        super().__init__()
        self.spec = spec
        inner, shared = spec.heads * spec.head_width, spec.groups * spec.states
        self.mix = Linear(width, inner + 2 * shared, bias=spec.bias, role="in")
        self.gate = Linear(width, inner, bias=spec.bias, role="in")
        self.step = Linear(width, spec.heads, bias=spec.bias, role="in")
        self.conv = ShortConv(inner + 2 * shared, spec.conv, bias=spec.conv_bias)
        self.act = activation(spec.act)
        self.steps = Steps(spec.heads, between=spec.steps, least=spec.least)
        self.rates = DrawnRates(spec.heads)
        self.skip = nn.Parameter(torch.ones(spec.heads))
        self.norm = GatedNorm(inner, groups=spec.groups, eps=spec.eps)
        self.out = Linear(inner, width, bias=spec.bias, role="out")

    def forward(  # pyrefly: ignore[bad-override]: a mixer is given the kind of state that it makes
        self, x: Float[Tensor, "B T D"], ctx: Context, state: Mamba2State | None = None
    ) -> Float[Tensor, "B T D"]:
        """Returns the mixed stream; a state is continued, in place."""
        spec, step = self.spec, self.steps(self.step(x), ctx.real)
        gate, shared = self.gate(x), spec.groups * spec.states
        mixed = self.act(self.conv(self.mix(x), ctx, None if state is None else state.conv))
        x, b, c = mixed.split((spec.heads * spec.head_width, shared, shared), -1)
        x, b, c = (t.unflatten(-1, (n, -1)) for t, n in ((x, spec.heads), (b, spec.groups), (c, spec.groups)))
        before = None if state is None else state.h
        y, after = ssd.chunked(x, step, self.rates(), b, c, before=before, starts=ctx.starts)
        if state is not None:
            state.h.copy_(after)
        y = torch.addcmul(y, self.skip[:, None], x).flatten(2)  # (B, T, E)
        return self.out(self.norm(y, gate))

    def new_state(
        self, rows: int, max_len: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Mamba2State:
        """Returns the state of ``rows`` rows that have read nothing, of the same size for any ``max_len``."""
        wide = torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)
        size = (rows, self.spec.heads, self.spec.head_width, self.spec.states)
        return Mamba2State(
            conv=self.conv.new_state(rows, device=device, dtype=dtype), h=torch.zeros(size, device=device, dtype=wide)
        )

    def mix_flops(self, tokens: int, seen: int) -> int:
        """Returns the operations of the products within chunks of tokens and between them."""
        spec = self.spec
        return ssd.flops(tokens, heads=spec.heads, head_width=spec.head_width, groups=spec.groups, states=spec.states)


class GatedNorm(nn.Module):
    """The RMSNorm of each group of channels, after they are gated."""

    def __init__(self, width: int, *, groups: int, eps: float) -> None:
        super().__init__()
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "B T E"], gate: Float[Tensor, "B T E"]) -> Float[Tensor, "B T E"]:
        """Returns the gated channels, normed."""
        x = x * F.silu(gate)
        if self.groups == 1:
            return rms_norm.rms_norm(x, self.weight, eps=self.eps)
        each = x.unflatten(-1, (self.groups, -1))
        return F.rms_norm(each, each.shape[-1:], eps=self.eps).flatten(-2) * self.weight
