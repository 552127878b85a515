"""Griffin's recurrent block: a gated linear recurrence of each channel, behind a short convolution and beside a gate.

    x = conv(W_x u);   i, r = sigmoid(gates(x)), by heads;   log a_t = -8 softplus(L) r_t
    h_t = a_t h_{t-1} + sqrt(1 - a_t^2) (i_t x_t);   out = W_o (h * act(W_g u))

The first token of a document enters without the root. Source: De et al. 2024 (Griffin, arXiv:2402.19427), section 2.4.
Letters: E channels, H heads of gates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.autograd import once
from groundup.context import Context
from groundup.errors import SpecError
from groundup.mixers.base import Mixer, MixerSpec
from groundup.ops import linear_scan
from groundup.parts.act import Act, activation
from groundup.parts.conv import ConvState, ShortConv
from groundup.parts.linear import Linear
from groundup.specs import Size
from groundup.state import State

STRENGTH = 8.0  # the paper's c: what the gate can at most multiply the logarithm of a decay by
STEEPEST = 1000.0  # of the root's gradients, which have no end where nothing decays


class RGLRU(MixerSpec):
    """A real-gated linear recurrent unit between linear maps.

    Attributes:
        channels: the width of the recurrence.
        heads: into how many blocks of channels the maps of its gates are cut.
        conv: taps of the convolution.
        act: the activation of the branch beside it, a key of `groundup.parts.act.ACTIVATIONS`.
        decays: between which the first d = exp(-softplus(L)) are drawn, even in their squares; where the gate is open,
            a state decays by d^8. So Google's code and transformers have it; the paper draws d^8 between the two.
    """

    channels: Size
    heads: Size
    conv: Size = 4
    act: Act = "gelu_tanh"
    decays: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels % self.heads:
            raise SpecError(f"channels={self.channels} is not a multiple of heads={self.heads}; change one of them")
        if not 0 < self.decays[0] <= self.decays[1] < 1:
            raise SpecError(f"decays={self.decays} must be two numbers between 0 and 1, the smaller one first")

    def build(self, width: int) -> RGLRUMixer:
        """Returns the module for a stream of ``width``."""
        return RGLRUMixer(self, width)


@dataclass
class RGLRUState(State):
    """The last inputs of the convolution, and the recurrence, which is a long sum in float32 or wider."""

    conv: ConvState
    h: Float[Tensor, "B E"]


class RGLRUMixer(Mixer):
    """The module of `RGLRU`."""

    def __init__(self, spec: RGLRU, width: int) -> None:
        super().__init__()
        self.x = Linear(width, spec.channels, bias=True, role="in")
        self.gate = Linear(width, spec.channels, bias=True, role="in")
        self.conv = ShortConv(spec.channels, spec.conv, bias=True)
        self.enter = BlockMap(spec.heads, spec.channels)
        self.forget = BlockMap(spec.heads, spec.channels)
        self.decay = nn.Parameter(torch.zeros(spec.channels))
        self.out = Linear(spec.channels, width, bias=True, role="out")
        self.act = activation(spec.act)
        self.decays = spec.decays

    def draw(self, generator: torch.Generator) -> None:
        """Draws the first d, even in their squares."""
        low, high = (decay**2 for decay in self.decays)
        squares = nn.init.uniform_(torch.empty_like(self.decay), low, high, generator=generator)
        with torch.no_grad():
            self.decay.copy_((squares.pow(-0.5) - 1).log())

    def forward(  # pyrefly: ignore[bad-override]: a mixer is given the kind of state that it makes
        self, x: Float[Tensor, "B T D"], ctx: Context, state: RGLRUState | None = None
    ) -> Float[Tensor, "B T D"]:
        """Returns the mixed stream; a state is continued, in place."""
        beside = self.act(self.gate(x))
        x = self.conv(self.x(x), ctx, None if state is None else state.conv)  # (B, T, E)
        wide = torch.promote_types(x.dtype, torch.float32)
        log = -STRENGTH * self.forget(x).to(wide).sigmoid() * F.softplus(self.decay.to(wide))
        fresh = ctx.positions[:, :, None] == 0
        if ctx.starts is not None:
            fresh = fresh | ctx.starts[:, :, None]
        keep = log.exp().masked_fill(fresh, 0.0)
        root = _Root.apply(-torch.expm1(2 * log)).masked_fill(fresh, 1.0)
        entered = x * self.enter(x).sigmoid() * root
        if ctx.real is not None:
            keep = keep.masked_fill(~ctx.real[:, :, None], 1.0)
            entered = entered.masked_fill(~ctx.real[:, :, None], 0.0)
        first = torch.zeros_like(entered[:, 0]) if state is None else state.h.to(wide)
        h = linear_scan.scan(keep, entered, first)
        if state is not None:
            state.h.copy_(h[:, -1])
        return self.out(h.to(beside.dtype) * beside)

    def new_state(
        self, rows: int, max_len: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> RGLRUState:
        """Returns the state of ``rows`` rows that have read nothing, of the same size for any ``max_len``."""
        wide = torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)
        return RGLRUState(
            conv=self.conv.new_state(rows, device=device, dtype=dtype),
            h=torch.zeros(rows, self.decay.shape[0], device=device, dtype=wide),
        )

    def mix_flops(self, tokens: int, seen: int) -> int:
        """Returns the operations of the gates' maps, which are blocks."""
        return tokens * (self.enter.flops_per_token + self.forget.flops_per_token)


class BlockMap(nn.Module):
    """A linear map of each head's channels by themselves: y_h = x_h W_h + b_h."""

    def __init__(self, heads: int, channels: int) -> None:
        super().__init__()
        each = channels // heads
        self.weight = nn.Parameter(torch.empty(heads, each, each))
        self.bias = nn.Parameter(torch.zeros(channels))

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations of the forward per token."""
        return 2 * self.weight.numel()

    def draw(self, generator: torch.Generator) -> None:
        """Draws the first weights so that they keep the spread of their inputs."""
        nn.init.normal_(self.weight, std=self.weight.shape[1] ** -0.5, generator=generator)

    def forward(self, x: Float[Tensor, "B T E"]) -> Float[Tensor, "B T E"]:
        """Returns the mapped channels."""
        heads = x.unflatten(-1, (self.weight.shape[0], -1)).flatten(0, 1).transpose(0, 1)  # (H, B T, E / H)
        y = (heads @ self.weight.to(x.dtype)).transpose(0, 1).reshape(x.shape)
        return y + self.bias


class _Root(torch.autograd.Function):
    """A square root whose gradient is bounded by `STEEPEST`, as the published code has it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sqrt()

    @staticmethod
    @once
    def backward(  # pyrefly: ignore[bad-override]: the decorator hides the names
        ctx: Any, *grad_outputs: Any
    ) -> Any:
        (x,) = ctx.saved_tensors
        return grad_outputs[0] / (4 * x).clamp(min=STEEPEST**-2).sqrt()
