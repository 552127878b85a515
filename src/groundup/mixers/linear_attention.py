"""Linear attention and its kin: a state of fixed size for each head instead of all keys and values.

    out = W_o reading(q_t S_t),   S_t = what the update makes of S_{t-1}, decayed, and of k_t and v_t
    q, k = feature(R(mix(W_q x))), feature(R(mix(W_k x)));   v = mix(W_v x);   queries are scaled by K^(-1/2)
    R turns by place, mix is a short convolution and a SiLU, or nothing.

What the parts make of it: linear attention (EluPlusOne, Quotient; Katharopoulos et al. 2020, arXiv:2006.16236),
Performer (RandomPositive, Quotient; Choromanski et al. 2020, arXiv:2009.14794), RetNet (RoPE, FixedDecay, Gated; Sun
et al. 2023, arXiv:2307.08621), GLA (LowRankDecay, Gated; Yang et al. 2023, arXiv:2312.06635), DeltaNet (UnitLength,
conv, Delta, Normed; Yang et al. 2024, arXiv:2406.06484), Gated DeltaNet (that with HeadDecay and Gated; Yang et al.
2024, arXiv:2412.06464). Letters: H heads of values, G heads of queries and keys, K key width, L value width.
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
from groundup.mixers.heads import check_shared
from groundup.parts.conv import ConvState, ShortConv
from groundup.parts.decay import Decay, NoDecay
from groundup.parts.feature import EluPlusOne, Feature
from groundup.parts.linear import Linear
from groundup.parts.position import NoPosition, Position
from groundup.parts.reading import Quotient, Reading
from groundup.parts.update import Add, Update
from groundup.specs import Count, Size
from groundup.state import State

Maps = tuple[Tensor, Tensor, Tensor]


class LinearAttention(MixerSpec):
    """Attention without a softmax, whose state does not grow.

    Attributes:
        heads: heads of values, each with a state of its own.
        key_heads: heads of queries and keys; each serves ``heads / key_heads`` heads of values.
        key_width: the width of one query or key.
        value_width: the width of one value.
        feature: what queries and keys become before they meet.
        position: how queries and keys learn their places.
        decay: how fast the state forgets.
        update: what a token writes to the state.
        reading: what becomes of what is read.
        conv: the tokens that a short convolution of queries, keys and values sees; 0 means no convolution.
    """

    heads: Size
    key_heads: Size
    key_width: Size
    value_width: Size
    feature: Feature = EluPlusOne()
    position: Position = NoPosition()
    decay: Decay = NoDecay()
    update: Update = Add()
    reading: Reading = Quotient()
    conv: Count = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shared(self.heads, key_heads=self.key_heads)
        if self.position.of_heads(self.key_heads, self.key_width).biased or self.position.reads_bias:
            kind = type(self.position).__name__
            raise SpecError(f"{kind} is added to scores, which linear attention has none of; choose RoPE or NoPosition")
        if self.update.needs_unit_length and not self.feature.unit_length:
            raise SpecError(f"{self.update!r} needs keys of length 1, not {self.feature!r}; use feature=UnitLength()")

    @property
    def steady_until(self) -> int | None:
        """The longest text whose pieces give the whole: the position says it."""
        return self.position.steady_until

    def build(self, width: int) -> LinearAttentionMixer:
        """Returns the module for a stream of ``width``."""
        return LinearAttentionMixer(self, width)


@dataclass
class MemoryState(State):
    """The matrix of each head, a long sum that is kept in float32 or wider, and the inputs of the convolution."""

    memory: Float[Tensor, "B H K L"]
    conv: State

    @property
    def rewinds(self) -> bool:
        """False: what was added up cannot be taken apart again."""
        return False


class Mix(nn.Module):
    """A short convolution of queries, keys and values, and a SiLU."""

    def __init__(self, *channels: int, taps: int) -> None:
        super().__init__()
        self.channels = channels
        self.short = ShortConv(sum(channels), taps, bias=False)

    def forward(self, maps: Maps, ctx: Context, state: ConvState | None) -> Maps:
        """Returns the three maps of the stream, each (B, T, C)."""
        q, k, v = F.silu(self.short(torch.cat(maps, -1), ctx, state)).split(self.channels, -1)
        return q, k, v

    def new_state(self, rows: int, *, device: torch.device | str | None, dtype: torch.dtype | None) -> ConvState:
        """Returns the state of ``rows`` rows that have read nothing."""
        return self.short.new_state(rows, device=device, dtype=dtype)


class NoMix(nn.Module):
    """Leaves queries, keys and values as they are."""

    def forward(self, maps: Maps, ctx: Context, state: State | None) -> Maps:
        """Returns the three maps of the stream, each (B, T, C)."""
        return maps

    def new_state(self, rows: int, *, device: torch.device | str | None, dtype: torch.dtype | None) -> State:
        """Returns the state of what remembers nothing."""
        return State()


class LinearAttentionMixer(Mixer):
    """The module of `LinearAttention`."""

    def __init__(self, spec: LinearAttention, width: int) -> None:
        super().__init__()
        self.spec = spec
        keys, values = spec.key_heads * spec.key_width, spec.heads * spec.value_width
        self.q = Linear(width, keys, bias=False, role="in")
        self.k = Linear(width, keys, bias=False, role="in")
        self.v = Linear(width, values, bias=False, role="in")
        self.out = Linear(values, width, bias=False, role="out")
        self.conv = Mix(keys, keys, values, taps=spec.conv) if spec.conv else NoMix()
        self.position = spec.position.of_heads(spec.key_heads, spec.key_width)
        self.feature = spec.feature.build(spec.key_width)
        self.decay = spec.decay.build(width, spec.heads, self.feature.width)
        self.update = spec.update.build(width, spec.heads)
        self.reading = spec.reading.build(width, spec.heads, spec.value_width)

    def forward(  # pyrefly: ignore[bad-override]: a mixer is given the kind of state that it makes
        self, x: Float[Tensor, "B T D"], ctx: Context, state: MemoryState | None = None
    ) -> Float[Tensor, "B T D"]:
        """Returns what is read of these tokens, and of those in the state."""
        spec, conv = self.spec, None if state is None else state.conv
        q, k, v = self.conv((self.q(x), self.k(x), self.v(x)), ctx, conv)
        q, k = (self._features(keys, ctx) for keys in (q, k))  # (B, H, T, K)
        v = self.reading.values(v.unflatten(-1, (-1, spec.value_width))).transpose(1, 2)  # (B, H, T, L)
        decay = self.decay(x)
        if ctx.real is not None:  # padding writes nothing, and nothing decays at it
            k = k * ctx.real[:, None, :, None]
            decay = None if decay is None else decay * ctx.real[:, None, :, None]
        memory = None if state is None else state.memory
        q = q * spec.key_width**-0.5
        y, after = self.update(x, q, k, v, decay=decay, state=memory, starts=ctx.starts)
        if state is not None:
            state.memory.copy_(after)
        return self.out(self.reading(y.transpose(1, 2), x).flatten(2))

    def _features(self, x: Float[Tensor, "B T C"], ctx: Context) -> Float[Tensor, "B H T K"]:
        heads = self.position(x.unflatten(-1, (-1, self.spec.key_width)), ctx)
        return self.feature(heads).repeat_interleave(self.spec.heads // self.spec.key_heads, 2).transpose(1, 2)

    def new_state(
        self, rows: int, max_len: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> MemoryState:
        """Returns the state of ``rows`` rows that have read nothing; it does not grow."""
        dtype = dtype or torch.get_default_dtype()
        size = (rows, self.spec.heads, self.feature.width, self.spec.value_width + self.reading.beside)
        return MemoryState(
            memory=torch.zeros(size, device=device, dtype=torch.promote_types(dtype, torch.float32)),
            conv=self.conv.new_state(rows, device=device, dtype=dtype),
        )

    def mix_flops(self, tokens: int, seen: int) -> int:
        """Returns the operations of the update and the features; they do not depend on what was seen before."""
        update = self.update.flops(tokens, *self._state_sides(), decays=self.decay.count)
        return self.spec.heads * update + self._feature_flops(tokens)

    def mix_backward_flops(self, tokens: int, seen: int) -> int:
        """Returns those of the backward: features are of directions that are not learnt, which have no gradient."""
        update = self.update.backward_flops(tokens, *self._state_sides(), decays=self.decay.count)
        return self.spec.heads * update + self._feature_flops(tokens)

    def _state_sides(self) -> tuple[int, int]:
        """The sides of a head's matrix, of keys and of values."""
        return self.feature.width, self.spec.value_width + self.reading.beside

    def _feature_flops(self, tokens: int) -> int:
        return 2 * self.spec.key_heads * tokens * self.feature.flops
