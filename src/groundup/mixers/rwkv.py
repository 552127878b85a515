"""RWKV-4: a weighted mean of all values that were read, and a feed-forward part, both with a shift of tokens.

    RWKV4:        y = W_o (sigmoid(r) * wkv(k, v)),   r, k, v = W (m * x_t + (1 - m) x_{t-1}), each with its own W and m
    ChannelMix:   y = sigmoid(r) * W_v relu(k)^2,     r, k likewise

Source: Peng et al. 2023 (arXiv:2305.13048), sections 3.1 and 3.2. The first values of the vectors are those of its
appendix E for a layer in the middle of a model; in theirs they change with depth. Letters: C channels, wkv is
`groundup.ops.wkv`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.context import Context
from groundup.mixers.base import Mixer, MixerSpec
from groundup.ops import wkv
from groundup.parts.conv import ConvState
from groundup.parts.linear import Linear
from groundup.parts.shift import mixes, new_shift
from groundup.specs import Size
from groundup.state import State


class RWKV4(MixerSpec):
    """The time mixing of RWKV-4.

    Attributes:
        channels: the width of receptances, keys and values.
    """

    channels: Size

    def build(self, width: int) -> RWKV4Mixer:
        """Returns the module for a stream of ``width``."""
        return RWKV4Mixer(self, width)


@dataclass
class WKVState(State):
    """The last token, and what is known of all: long sums, kept in float32 or wider."""

    shift: ConvState
    values: Float[Tensor, "B C"]
    weights: Float[Tensor, "B C"]
    top: Float[Tensor, "B C"]


class RWKV4Mixer(Mixer):
    """The module of `RWKV4`."""

    def __init__(self, spec: RWKV4, width: int) -> None:
        super().__init__()
        channels = spec.channels
        self.width, self.channels = width, channels
        share = (torch.arange(width) / width).sqrt()
        self.mix_r = nn.Parameter(share.sqrt())
        self.mix_k = nn.Parameter(share.clone())
        self.mix_v = nn.Parameter(share + 0.15)
        place = torch.arange(channels) / max(channels - 1, 1)
        self.decay = nn.Parameter(8 * place**1.35 - 5)
        self.bonus = nn.Parameter((torch.arange(channels) + 1) % 3 * 0.5 - 0.5 + torch.tensor(0.3).log())
        self.r = Linear(width, channels, bias=False, role="in")
        self.k = Linear(width, channels, bias=False, role="in")
        self.v = Linear(width, channels, bias=False, role="in")
        self.out = Linear(channels, width, bias=False, role="out")

    def forward(  # pyrefly: ignore[bad-override]: a mixer is given the kind of state that it makes
        self, x: Float[Tensor, "B T D"], ctx: Context, state: WKVState | None = None
    ) -> Float[Tensor, "B T D"]:
        """Returns the gated means; with a state, over all that it holds and these tokens."""
        past = [1 - own for own in (self.mix_r, self.mix_k, self.mix_v)]
        mixed = mixes(x, ctx, past, None if state is None else state.shift)
        r, k, v = (linear(mix) for linear, mix in zip((self.r, self.k, self.v), mixed, strict=True))
        wide = torch.promote_types(k.dtype, torch.float32)
        k, v, w, u = k.to(wide), v.to(wide), self.decay.to(wide).exp(), self.bonus.to(wide)
        operation = wkv.reference if x.shape[1] == 1 else wkv.scanned
        if state is None:
            nothing = k.new_zeros(x.shape[0], self.channels)
            sums = wkv.Sums(nothing, nothing, nothing + wkv.NOTHING)
            y, _ = operation(k, v, w, u, sums, starts=ctx.starts)
        else:
            kept = (state.values, state.weights, state.top)
            y, last = operation(k, v, w, u, wkv.Sums(*(t.to(wide) for t in kept)), lengths=ctx.lengths)
            for held, new in zip(kept, last, strict=True):
                held.copy_(new)
        return self.out(r.sigmoid() * y.to(r.dtype))

    def new_state(
        self, rows: int, max_len: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> WKVState:
        """Returns the state of ``rows`` rows that have read nothing; it does not grow."""
        wide = torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)
        shift = new_shift(rows, self.width, device=device, dtype=dtype)
        values, weights = (torch.zeros(rows, self.channels, device=device, dtype=wide) for _ in range(2))
        return WKVState(shift, values, weights, torch.full_like(values, wkv.NOTHING))


class ChannelMix(MixerSpec):
    """The channel mixing of RWKV-4 and RWKV-5: an MLP of a shifted stream, with a gate.

    Attributes:
        hidden: the width inside.
    """

    hidden: Size

    def build(self, width: int) -> ChannelMixer:
        """Returns the module for a stream of ``width``."""
        return ChannelMixer(self, width)


class ChannelMixer(Mixer):
    """The module of `ChannelMix`."""

    def __init__(self, spec: ChannelMix, width: int) -> None:
        super().__init__()
        self.width = width
        share = (torch.arange(width) / width).sqrt()
        self.mix_r = nn.Parameter(share.clone())
        self.mix_k = nn.Parameter(share.clone())
        self.gate = Linear(width, width, bias=False, role="in")
        self.up = Linear(width, spec.hidden, bias=False, role="in")
        self.down = Linear(spec.hidden, width, bias=False, role="out")

    def forward(  # pyrefly: ignore[bad-override]: a mixer is given the kind of state that it makes
        self, x: Float[Tensor, "B T D"], ctx: Context, state: ConvState | None = None
    ) -> Float[Tensor, "B T D"]:
        """Returns the transformed stream; a state holds the token before."""
        r, k = mixes(x, ctx, [1 - own for own in (self.mix_r, self.mix_k)], state)
        return self.gate(r).sigmoid() * self.down(F.relu(self.up(k)).square())

    def new_state(
        self, rows: int, max_len: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> ConvState:
        """Returns the state of ``rows`` rows that have read nothing."""
        return new_shift(rows, self.width, device=device, dtype=dtype)
