"""RWKV-7 (Goose): a matrix for each head decays, forgets what a key finds, and takes in products of keys and values.

    y_t = W_o ((norm(r_t S_t) + (r_t . (r_k * k_t)) v_t) * g_t)
    S_t = diag(w_t) S_{t-1} - (a_t * n_t) (n_t S_{t-1}) + k_t v_t^T,       n_t = k'_t * k_k, of length 1 in each head
    k_t = k'_t * (1 + (a_t - 1) k_a),      v_t = v'_t + (v^1_t - v'_t) sigmoid(L(x_v)),   v^1 the first layer's values
    w_t = exp(-e^(-1/2) sigmoid(L(tanh, x_w))),    a_t = sigmoid(L(x_a)),    g_t = W sigmoid(W x_g)
    ShiftedMLP: W_v relu(W_k x_k)^2
    x_i = x_t + m_i (x_{t-1} - x_t);   r, k', v' = W_i x_i;   L are maps of low rank with a bias

Source: Peng et al. 2025 (arXiv:2503.14456), section 4. First values of the vectors are those of its code for a layer
in the middle of a model. Letters: H heads, K their width.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.context import Context
from groundup.mixers.base import Mixer, MixerSpec
from groundup.mixers.rwkv5 import MatrixState
from groundup.ops import diagonal_low_rank
from groundup.parts.conv import ConvState
from groundup.parts.linear import Linear
from groundup.parts.norm import HeadNorm
from groundup.parts.shift import mixes, new_shift
from groundup.specs import Size

FIRST = "values of RWKV-7's first layer"


class RWKV7(MixerSpec):
    """The time mixing of RWKV-7.

    Attributes:
        heads: heads, each with a state of its own.
        head_width: the width of a head's receptances, keys and values.
        decay_rank: the rank of the map that makes decays.
        rate_rank: the rank of the map that makes rates.
        gate_rank: the rank of the map that makes gates.
        value_rank: the rank of the map that mixes in the first layer's values; None in the first layer, which has none.
    """

    heads: Size
    head_width: Size
    decay_rank: Size
    rate_rank: Size
    gate_rank: Size
    value_rank: Size | None = None

    @property
    def alone(self) -> bool:
        """False: layers share the values of the first."""
        return False

    def build(self, width: int) -> RWKV7Mixer:
        """Returns the module for a stream of ``width``."""
        return RWKV7Mixer(self, width)


class LowRank(nn.Module):
    """A map in two steps with an activation between them, and a bias with given first values."""

    def __init__(self, width: int, rank: int, bias: Tensor, act: nn.Module) -> None:
        super().__init__()
        self.down = Linear(width, rank, bias=False, role="in")
        self.act = act
        self.up = Linear(rank, len(bias), bias=True, role="in")
        self.up.bias = nn.Parameter(bias)

    def forward(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows C"]:
        """Returns the mapped vectors."""
        return self.up(self.act(self.down(x)))


class RWKV7Mixer(Mixer):
    """The module of `RWKV7`."""

    def __init__(self, spec: RWKV7, width: int) -> None:
        super().__init__()
        self.spec, self.width = spec, width
        channels = spec.heads * spec.head_width
        share, place = torch.arange(width) / width, torch.arange(channels) / max(channels - 1, 1)
        within = 2 * (torch.arange(channels) % spec.head_width) / max(spec.head_width - 1, 1) - 1
        zigzag = within * within.abs()
        powers = {"r": 0.1, "w": 0.45, "k": 0.35, "v": 0.35, "a": 0.45, "g": 0.1}
        self.mixes = nn.ParameterDict({name: 1 - share**power for name, power in powers.items()})
        self.r, self.k, self.v = (Linear(width, channels, bias=False, role="in") for _ in range(3))
        self.decay = LowRank(width, spec.decay_rank, 6 * place**1.8 - 5.5 + 2.5 * zigzag, nn.Tanh())
        self.rate = LowRank(width, spec.rate_rank, 0.4 * place - 0.39 + 0.3 * zigzag, nn.Identity())
        self.gate_in = Linear(width, spec.gate_rank, bias=False, role="in")
        self.gate_out = Linear(spec.gate_rank, channels, bias=False, role="in")
        self.first = (
            None if spec.value_rank is None else LowRank(width, spec.value_rank, 0.93 - 0.4 * place, nn.Identity())
        )
        self.key_forget = nn.Parameter(0.76 - 0.1 * place)
        self.key_rate = nn.Parameter(torch.full((channels,), 1.02))
        self.bonus = nn.Parameter(torch.full((channels,), -0.04))
        self.norm = HeadNorm(spec.heads, channels, eps=64e-5)
        self.out = Linear(channels, width, bias=False, role="out")

    def forward(  # pyrefly: ignore[bad-override]: a mixer is given the kind of state that it makes
        self, x: Float[Tensor, "B T D"], ctx: Context, state: MatrixState | None = None
    ) -> Float[Tensor, "B T D"]:
        """Returns the gated reading; with a state, of all that it holds and these tokens."""
        mixed = mixes(x, ctx, list(self.mixes.values()), None if state is None else state.shift)
        at = dict(zip(self.mixes, mixed, strict=True))
        r, k, v, rate = self.r(at["r"]), self.k(at["k"]), self.v(at["v"]), self.rate(at["a"]).sigmoid()
        first = ctx.once(FIRST, lambda: v)
        if self.first is not None:
            v = torch.lerp(v, first, self.first(at["v"]).sigmoid())
        heads = (self.spec.heads, self.spec.head_width)
        forget = F.normalize((k * self.key_forget).unflatten(-1, heads), dim=-1)
        k = k * (1 + (rate - 1) * self.key_rate)
        r, k, v, rate = (t.unflatten(-1, heads) for t in (r, k, v, rate))
        wide = torch.promote_types(v.dtype, torch.float32)
        decay = -math.exp(-0.5) * self.decay(at["w"]).to(wide).sigmoid().unflatten(-1, heads)
        y = self._read(r, k, v, forget, forget * rate, decay, ctx, state)
        y = self.norm(y).flatten(2) + ((r * k * self.bonus.unflatten(0, heads)).sum(-1, keepdim=True) * v).flatten(2)
        return self.out(y.to(x.dtype) * self.gate_out(self.gate_in(at["g"]).sigmoid()))

    def _read(
        self,
        r: Tensor,
        k: Tensor,
        v: Tensor,
        forget: Tensor,
        away: Tensor,
        decay: Tensor,
        ctx: Context,
        state: MatrixState | None,
    ) -> Tensor:
        if ctx.real is not None:
            k, away, decay = (t * ctx.real[..., None, None] for t in (k, away, decay))
        given = (t.transpose(1, 2).to(v.dtype) for t in (r, k, v, forget, away))
        one = v.shape[1] == 1
        operation = diagonal_low_rank.reference if one else diagonal_low_rank.chunked
        before = None if state is None else state.matrix
        y, after = operation(*given, decay=decay.transpose(1, 2), state=before, starts=ctx.starts)
        if state is not None:
            state.matrix.copy_(after)
        return y.transpose(1, 2)

    def new_state(
        self, rows: int, max_len: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> MatrixState:
        """Returns the state of ``rows`` rows that have read nothing; it does not grow."""
        sizes = {"width": self.width, "heads": self.spec.heads, "head_width": self.spec.head_width}
        return MatrixState.empty(rows, **sizes, device=device, dtype=dtype)

    def mix_flops(self, tokens: int, seen: int) -> int:
        """Returns the operations of the products in chunks; a single token has none."""
        width = self.spec.head_width
        return self.spec.heads * diagonal_low_rank.flops(tokens, width, width) if tokens > 1 else 0

    def mix_backward_flops(self, tokens: int, seen: int) -> int:
        """Returns the operations of their backward, of a text from its start."""
        width = self.spec.head_width
        return self.spec.heads * diagonal_low_rank.backward_flops(tokens, width, width) if tokens > 1 else 0


class ShiftedMLP(MixerSpec):
    """The channel mixing of RWKV-7: an MLP with squared ReLUs of a shifted stream.

    Attributes:
        hidden: the width inside.
    """

    hidden: Size

    def build(self, width: int) -> ShiftedMLPMixer:
        """Returns the module for a stream of ``width``."""
        return ShiftedMLPMixer(self, width)


class ShiftedMLPMixer(Mixer):
    """The module of `ShiftedMLP`."""

    def __init__(self, spec: ShiftedMLP, width: int) -> None:
        super().__init__()
        self.width = width
        self.mix = nn.Parameter(1 - (torch.arange(width) / width) ** 0.0625)
        self.up = Linear(width, spec.hidden, bias=False, role="in")
        self.down = Linear(spec.hidden, width, bias=False, role="out")

    def forward(  # pyrefly: ignore[bad-override]: a mixer is given the kind of state that it makes
        self, x: Float[Tensor, "B T D"], ctx: Context, state: ConvState | None = None
    ) -> Float[Tensor, "B T D"]:
        """Returns the transformed stream; a state holds the token before."""
        (mixed,) = mixes(x, ctx, [self.mix], state)
        return self.down(F.relu(self.up(mixed)).square())

    def new_state(
        self, rows: int, max_len: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> ConvState:
        """Returns the state of ``rows`` rows that have read nothing."""
        return new_shift(rows, self.width, device=device, dtype=dtype)
