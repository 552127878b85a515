"""Causal attention in chunks: each token sees those before it in its own chunk and in the chunks before that.

    y_t = sum_s softmax_s(q_t . k_s / sqrt(K)) v_s     over s <= t with floor(s / C) >= floor(t / C) - before

Source: Kitaev et al. 2020 (Reformer, arXiv:2001.04451), whose layers alternate with it in the published models.
Letters: C tokens of a chunk.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from groundup.context import Context
from groundup.mixers.base import MixerSpec
from groundup.mixers.heads import HeadsMixer
from groundup.mixers.kv import KVState, WindowState
from groundup.ops import attention, block_attention
from groundup.parts.linear import Linear
from groundup.parts.mask import Chunks
from groundup.specs import Count, ShareBelowOne, Size


class ChunkedAttention(MixerSpec):
    """Attention to the chunk of a token and those before it.

    Attributes:
        heads: the number of heads.
        head_width: the width of one head.
        chunk: the tokens of a chunk.
        before: how many chunks before its own a token sees.
        dropout: the chance of each attention weight to be dropped in training.
    """

    heads: Size
    head_width: Size
    chunk: Size = 64
    before: Count = 1
    dropout: ShareBelowOne = 0.0

    @property
    def hides(self) -> bool:
        """True: no token sees what comes after it."""
        return True

    def build(self, width: int) -> ChunkedMixer:
        """Returns the module for a stream of ``width``."""
        return ChunkedMixer(self, width)


class ChunkedMixer(HeadsMixer):
    """The module of `ChunkedAttention`."""

    def __init__(self, spec: ChunkedAttention, width: int) -> None:
        super().__init__(width, heads=spec.heads, head_width=spec.head_width, bias=False, dropout=spec.dropout)
        self.spec = spec
        self.mask = Chunks(spec.chunk, before=spec.before)
        self.out = Linear(self.inside, width, bias=False, role="out")

    def forward(  # pyrefly: ignore[bad-override]: a mixer is given the kind of state that it makes
        self, x: Float[Tensor, "B T D"], ctx: Context, state: KVState | WindowState | None = None
    ) -> Float[Tensor, "B T D"]:
        """Returns the attended stream; with a state, over all that it holds and these tokens."""
        q, k, v = (self.heads(made, x) for made in (self.q, self.k, self.v))
        held_k, held_v, places = (k, v, ctx.positions) if state is None else state.append(k, v, ctx)
        if state is None or ctx.reach == x.shape[1]:  # all rows begin here
            y = self._in_blocks(q, k, v, ctx)
        else:
            allowed = ctx.once(f"{self.mask!r} over a state", lambda: self.mask.over(ctx, keys=places))
            y = attention.attend(q, held_k.to(q.dtype), held_v.to(q.dtype), allowed=allowed, causal=True, **self.how)
        return self.out(y.transpose(1, 2).flatten(2))

    def _in_blocks(
        self,
        q: Float[Tensor, "B H T K"],
        k: Float[Tensor, "B H T K"],
        v: Float[Tensor, "B H T K"],
        ctx: Context,
    ) -> Float[Tensor, "B H T K"]:
        tokens, block = q.shape[2], min(self.spec.chunk, q.shape[2])
        q, k, v = (F.pad(t, (0, 0, 0, -tokens % block)) for t in (q, k, v))
        # Chunks are counted from a document's start, which may be within a block: one more may hold some of them.
        before = self.spec.before + (ctx.segments is not None)
        plan = block_attention.window(q.shape[2] // block, before=before, after=0, device=q.device)
        allowed = ctx.once(("chunks", self.spec), lambda: self._allowed(plan, block, ctx))
        return block_attention.attend(q, k, v, plan=plan, allowed=allowed, **self.how)[:, :, :tokens]

    def _allowed(self, plan: Int[Tensor, "1 N J"], block: int, ctx: Context) -> Bool[Tensor, "#B 1 N C X"]:
        tokens, whole = ctx.positions.shape[1], plan.shape[1] * block
        query = torch.arange(whole, device=plan.device).unflatten(0, (-1, block))  # (N, C)
        key = block_attention.places(plan, size=block, keys=whole)[0]  # (N, X)
        if ctx.segments is None:  # one document a row: its order alone
            return self.mask.allowed(query[..., None], key[:, None])[None, None]
        spare = (0, whole - tokens)
        place, segment = F.pad(ctx.positions, spare, value=whole), F.pad(ctx.segments, spare, value=-1)
        listed = key.clamp(min=0)
        seen = self.mask.allowed(place[:, query, None], place[:, listed][:, :, None])
        seen = seen & (segment[:, query, None] == segment[:, listed][:, :, None]) & (key[:, None] >= 0)
        return (seen & (key[:, None] <= query[..., None]))[:, None]

    def new_state(
        self, rows: int, max_len: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> KVState | WindowState:
        """Returns empty keys and values for ``rows`` rows: ``max_len`` slots, or those of the chunks if fewer."""
        window = self.mask.window
        size = (rows, self.spec.heads, min(window, max_len), self.spec.head_width)
        k, v = (torch.zeros(size, device=device, dtype=dtype) for _ in "kv")
        return WindowState(k=k, v=v) if window <= max_len else KVState(k=k, v=v)

    def mix_flops(self, tokens: int, seen: int) -> int:
        """Returns the operations of whole chunks, or of new tokens over a state."""
        spec, window = self.spec, self.mask.window
        if tokens < seen:
            return self.attend_flops(tokens, min(seen, window + tokens - 1))
        block = min(spec.chunk, tokens)
        blocks = -(-tokens // block)
        listed = (min(spec.before, blocks - 1) + 1) * block
        return self.attend_flops(blocks * block, listed)
