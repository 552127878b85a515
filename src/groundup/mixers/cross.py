"""Attention of a decoder's tokens over a memory: what an encoder made of another text.

    out = W_o concat_h attend(W_q x, W_k m, W_v m)

Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.2.3. Letters: M tokens of the memory, H heads, G key/value
heads, K head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.context import Context
from groundup.errors import GenerationError
from groundup.mixers.base import Mixer, MixerSpec
from groundup.mixers.heads import check_shared
from groundup.parts.linear import Linear
from groundup.parts.score import Scaled, Score
from groundup.specs import ShareBelowOne, Size
from groundup.state import State


class CrossAttention(MixerSpec):
    """Attention over a memory.

    Attributes:
        heads: heads of queries.
        kv_heads: heads of keys and values; each serves ``heads / kv_heads`` heads of queries.
        head_width: the width of one head.
        score: how queries score keys.
        bias: whether queries, keys and values have a bias.
        out_bias: whether the output has a bias.
        dropout: the chance of each attention weight to be dropped in training.
    """

    heads: Size
    kv_heads: Size
    head_width: Size
    score: Score = Scaled()
    bias: bool = False
    out_bias: bool = False
    dropout: ShareBelowOne = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shared(self.heads, kv_heads=self.kv_heads)

    @property
    def alone(self) -> bool:
        """False: it reads what another model made."""
        return False

    @property
    def reads_memory(self) -> bool:
        """True."""
        return True

    def build(self, width: int) -> CrossAttentionMixer:
        """Returns the module for a stream and a memory of ``width``."""
        return CrossAttentionMixer(self, width)


@dataclass
class CrossState(State):
    """The keys and values of the memory, and how many of its tokens are real."""

    k: Float[Tensor, "B G M K"]
    v: Float[Tensor, "B G M K"]
    lengths: Int[Tensor, "B"]

    def rewind(self, length: Tensor) -> None:
        """Forgets nothing: the memory does not grow with the tokens."""


class CrossAttentionMixer(Mixer):
    """The module of `CrossAttention`."""

    def __init__(self, spec: CrossAttention, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.q = Linear(width, spec.heads * spec.head_width, bias=spec.bias, role="in")
        self.k = Linear(width, spec.kv_heads * spec.head_width, bias=spec.bias, role="in")
        self.v = Linear(width, spec.kv_heads * spec.head_width, bias=spec.bias, role="in")
        self.out = Linear(spec.heads * spec.head_width, width, bias=spec.out_bias, role="out")
        self.score = spec.score.build(spec.heads, spec.head_width)

    def forward(  # pyrefly: ignore[bad-override]: a mixer is given the kind of state that it makes
        self, x: Float[Tensor, "B T D"], ctx: Context, state: CrossState | None = None
    ) -> Float[Tensor, "B T D"]:
        """Returns what the tokens read in the memory; with a state, in that which it was made with."""
        q = self.q(x).unflatten(-1, (-1, self.spec.head_width)).transpose(1, 2)
        if state is None:
            k, v = self._keys_and_values(ctx)
            lengths = ctx.memory_lengths
        else:
            k, v, lengths = state.k.to(q.dtype), state.v.to(q.dtype), state.lengths
        allowed = None if lengths is None else ctx.once("memory", lambda: _real(lengths, q.shape[2], k.shape[2]))
        chance = self.spec.dropout if self.training else 0.0
        y = self.score(q, k, v, allowed=allowed, causal=False, bias=None, dropout=chance)
        return self.out(y.transpose(1, 2).flatten(2))

    def _keys_and_values(self, ctx: Context) -> tuple[Tensor, Tensor]:
        if ctx.memory is None:
            raise GenerationError("the decoder attends to another text, and none was given; give source=")
        maps = (self.k(ctx.memory), self.v(ctx.memory))
        k, v = (t.unflatten(-1, (-1, self.spec.head_width)).transpose(1, 2) for t in maps)
        return k, v

    def remember(self, ctx: Context, *, dtype: torch.dtype | None = None) -> CrossState:
        """Returns the state with the keys and values of the context's memory."""
        k, v = self._keys_and_values(ctx)
        everything = torch.full((k.shape[0],), k.shape[2], device=k.device)
        lengths = everything if ctx.memory_lengths is None else ctx.memory_lengths
        return CrossState(k=k.to(dtype or k.dtype), v=v.to(dtype or v.dtype), lengths=lengths)

    def memory_maps(self) -> Sequence[nn.Module]:
        """Returns the maps of keys and values."""
        return (self.k, self.v)

    def mix_flops(self, tokens: int, seen: int) -> int:
        """Returns the operations of scores and weighted sums over a memory of ``seen`` tokens."""
        seen += self.score.sinks
        return 2 * self.score.products * self.spec.heads * self.spec.head_width * tokens * seen


def _real(lengths: Int[Tensor, "B"], queries: int, keys: int) -> Tensor:
    """Which keys each query may see, (B, 1, T, M)."""
    place = torch.arange(keys, device=lengths.device)
    return (place < lengths[:, None])[:, None, None].expand(-1, 1, queries, -1)
