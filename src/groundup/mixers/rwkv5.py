"""RWKV-5 (Eagle): a matrix for each head takes in products of keys and values and decays, channel by channel.

    y_t = W_o (norm(r_t (S_{t-1} + diag(u) k_t v_t^T)) * silu(g_t)),    S_t = diag(w) S_{t-1} + k_t v_t^T
    r, k, v, g = W (m * x_t + (1 - m) x_{t-1}), each with its own W and m;   w = exp(-exp(decay))

Source: Peng et al. 2024 (arXiv:2404.05892), section 4.1; its code divides what is read by 8 before a norm with eps
1e-5, which is a norm with eps 64e-5. First values of the vectors: as in `groundup.mixers.rwkv`. Letters: H heads, K
their width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.context import Context
from groundup.mixers.base import Mixer, MixerSpec
from groundup.ops import linear_attention
from groundup.parts.conv import ConvState
from groundup.parts.linear import Linear
from groundup.parts.norm import HeadNorm
from groundup.parts.shift import mixes, new_shift
from groundup.specs import Size
from groundup.state import State


class RWKV5(MixerSpec):
    """The time mixing of RWKV-5.

    Attributes:
        heads: heads, each with a state of its own.
        head_width: the width of a head's receptances, keys and values.
    """

    heads: Size
    head_width: Size

    def build(self, width: int) -> RWKV5Mixer:
        """Returns the module for a stream of ``width``."""
        return RWKV5Mixer(self, width)


@dataclass
class MatrixState(State):
    """The last token, and a matrix for each head: a long sum, kept in float32 or wider."""

    shift: ConvState
    matrix: Float[Tensor, "B H K K"]

    @classmethod
    def empty(
        cls,
        rows: int,
        *,
        width: int,
        heads: int,
        head_width: int,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> MatrixState:
        """Returns the state of ``rows`` rows of a stream of ``width`` that have read nothing; it does not grow."""
        wide = torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)
        matrix = torch.zeros(rows, heads, head_width, head_width, device=device, dtype=wide)
        return cls(new_shift(rows, width, device=device, dtype=dtype), matrix)


class RWKV5Mixer(Mixer):
    """The module of `RWKV5`."""

    def __init__(self, spec: RWKV5, width: int) -> None:
        super().__init__()
        self.spec, self.width = spec, width
        channels = spec.heads * spec.head_width
        share = (torch.arange(width) / width).sqrt()
        self.mix_r = nn.Parameter(share.sqrt())
        self.mix_k = nn.Parameter(share.clone())
        self.mix_v = nn.Parameter(share + 0.15)
        self.mix_g = nn.Parameter(share.sqrt())
        place = torch.arange(channels) / max(channels - 1, 1)
        self.decay = nn.Parameter(5 * place**1.35 - 6)
        self.bonus = nn.Parameter(0.5 * (1 - place) + (torch.arange(channels) + 1) % 3 * 0.1 - 0.1)
        self.r, self.k, self.v, self.g = (Linear(width, channels, bias=False, role="in") for _ in range(4))
        self.norm = HeadNorm(spec.heads, channels, eps=64e-5)
        self.out = Linear(channels, width, bias=False, role="out")

    def forward(  # pyrefly: ignore[bad-override]: a mixer is given the kind of state that it makes
        self, x: Float[Tensor, "B T D"], ctx: Context, state: MatrixState | None = None
    ) -> Float[Tensor, "B T D"]:
        """Returns the gated reading; with a state, of all that it holds and these tokens."""
        past = [1 - own for own in (self.mix_r, self.mix_k, self.mix_v, self.mix_g)]
        mixed = mixes(x, ctx, past, None if state is None else state.shift)
        r, k, v, g = (linear(mix) for linear, mix in zip((self.r, self.k, self.v, self.g), mixed, strict=True))
        r, k, v = (t.unflatten(-1, (self.spec.heads, -1)).transpose(1, 2) for t in (r, k, v))  # (B, H, T, K)
        y = self._read(r, k, v, ctx, state)
        return self.out(self.norm(y.transpose(1, 2)).flatten(2) * F.silu(g))

    def _read(self, r: Tensor, k: Tensor, v: Tensor, ctx: Context, state: MatrixState | None) -> Tensor:
        wide = torch.promote_types(v.dtype, torch.float32)
        decay, bonus = (t.to(wide).view(1, self.spec.heads, 1, -1) for t in (self.decay, self.bonus))
        decay = -decay.exp()
        bonus_read = (r * bonus * k).sum(-1, keepdim=True).to(v.dtype) * v
        if ctx.real is not None:
            real = ctx.real[:, None, :, None]
            k, decay = k * real, decay * real
        before = None if state is None else state.matrix.to(wide)
        operation = linear_attention.reference if r.shape[2] == 1 else linear_attention.chunked
        # A token reads what was before it: as a query, it belongs to the token before.
        early = F.pad(r[:, :, 1:], (0, 0, 0, 1))
        read, after = operation(early, k, v, decay=decay, state=before, starts=ctx.starts)
        first = torch.zeros_like(v[:, :, 0]) if before is None else (r[:, :, 0, :, None] * before).sum(2).to(v.dtype)
        read = torch.cat([first[:, :, None], read[:, :, :-1]], 2)
        if ctx.starts is not None:
            read = read.masked_fill(ctx.starts[:, None, :, None], 0.0)
        if state is not None:
            state.matrix.copy_(after)
        return read + bonus_read

    def new_state(
        self, rows: int, max_len: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> MatrixState:
        """Returns the state of ``rows`` rows that have read nothing; it does not grow."""
        sizes = {"width": self.width, "heads": self.spec.heads, "head_width": self.spec.head_width}
        return MatrixState.empty(rows, **sizes, device=device, dtype=dtype)

    def mix_flops(self, tokens: int, seen: int) -> int:
        """Returns the operations of the products in chunks; a single token has none."""
        width = self.spec.head_width
        each = linear_attention.flops(tokens, width, width, decays=width)
        return self.spec.heads * each if tokens > 1 else 0

    def mix_backward_flops(self, tokens: int, seen: int) -> int:
        """Returns the operations of their backward, of a text from its start."""
        width = self.spec.head_width
        each = linear_attention.backward_flops(tokens, width, width, decays=width)
        return self.spec.heads * each if tokens > 1 else 0
