"""Attention to a window around every token and to a few tokens that see all and are seen by all.

    y_t = sum_s softmax_s(q_t . k_s / sqrt(K)) v_s      over |s - t| <= reach and the global s, if t is not global
    y_t = sum_s softmax_s(q'_t . k'_s / sqrt(K)) v'_s   over all s, if t is global, with maps W' of their own

Which tokens are global is data: `Context.central` marks them, and where it is None they are the first ``leading`` of
each document. The definition is attention under a full mask; what runs reads blocks of ``reach`` tokens and their
neighbours, so its time grows with the length of the text.
Source: Beltagy et al. 2020 (Longformer, arXiv:2004.05150), section 3.1. Letters: G global tokens, N blocks of C.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from groundup.context import Context
from groundup.mixers.base import MixerSpec
from groundup.mixers.heads import HeadsMixer
from groundup.ops import attention, block_attention
from groundup.parts.linear import Linear
from groundup.specs import Count, ShareBelowOne, Size


class LocalGlobalAttention(MixerSpec):
    """Attention to a window around every token and to a few global tokens.

    Attributes:
        heads: the number of heads.
        head_width: the width of one head.
        reach: how many tokens before it, and as many after it, a token sees.
        leading: how many tokens at the start of a document are global where the context does not say which are.
        bias: whether queries, keys and values have a bias.
        out_bias: whether the output has a bias.
        dropout: the chance of each attention weight to be dropped in training.
    """

    heads: Size
    head_width: Size
    reach: Size
    leading: Count = 1
    bias: bool = False
    out_bias: bool = False
    dropout: ShareBelowOne = 0.0

    @property
    def causal(self) -> bool:
        """False: tokens see what comes after them."""
        return False

    def build(self, width: int) -> LocalGlobalMixer:
        """Returns the module for a stream of ``width``."""
        return LocalGlobalMixer(self, width)


class Central(NamedTuple):
    """The global tokens of each row.

    Attributes:
        place: where they are, (B, G); T for what fills up rows that have fewer.
        marked: which tokens they are, (B, T).
    """

    place: Int[Tensor, "B G"]
    marked: Bool[Tensor, "B T"]


class LocalGlobalMixer(HeadsMixer):
    """The module of `LocalGlobalAttention`."""

    def __init__(self, spec: LocalGlobalAttention, width: int) -> None:
        super().__init__(width, heads=spec.heads, head_width=spec.head_width, bias=spec.bias, dropout=spec.dropout)
        self.spec = spec
        self.global_q = Linear(width, self.inside, bias=spec.bias, role="in")
        self.global_k = Linear(width, self.inside, bias=spec.bias, role="in")
        self.global_v = Linear(width, self.inside, bias=spec.bias, role="in")
        self.out = Linear(self.inside, width, bias=spec.out_bias, role="out")

    def forward(  # pyrefly: ignore[bad-override]: it reads all at once and has no state
        self, x: Float[Tensor, "B T D"], ctx: Context, state: None = None
    ) -> Float[Tensor, "B T D"]:
        """Returns the attended stream."""
        central = self._central(ctx)
        y = self._around(self.heads(self.q, x), self.heads(self.k, x), self.heads(self.v, x), ctx, central)
        if central.place.shape[1]:
            q, k, v = (self.heads(made, x) for made in (self.global_q, self.global_k, self.global_v))
            y = self._from_all(y, q, k, v, ctx, central)
        return self.out(y.transpose(1, 2).flatten(2))

    def _around(
        self,
        q: Float[Tensor, "B H T K"],
        k: Float[Tensor, "B H T K"],
        v: Float[Tensor, "B H T K"],
        ctx: Context,
        central: Central,
    ) -> Float[Tensor, "B H T K"]:
        """Returns what tokens make of their window and of the global tokens."""
        tokens, block = q.shape[2], min(self.spec.reach, q.shape[2])
        spare = -tokens % block
        pick = central.place.clamp(max=tokens - 1)[:, None, :, None].expand(-1, q.shape[1], -1, q.shape[3])
        k, v = (torch.cat([F.pad(t, (0, 0, 0, spare)), t.gather(2, pick)], 2) for t in (k, v))
        plan = block_attention.window((tokens + spare) // block, before=1, after=1, device=q.device)
        y = block_attention.attend(
            F.pad(q, (0, 0, 0, spare)),
            k,
            v,
            plan=plan,
            allowed=ctx.once(("around", self.spec), lambda: self._allowed(plan, block, ctx, central)),
            **self.how,
        )
        return y[:, :, :tokens]

    def _allowed(
        self, plan: Int[Tensor, "1 N J"], block: int, ctx: Context, central: Central
    ) -> Bool[Tensor, "B 1 N C X"]:
        tokens = ctx.positions.shape[1]
        query = torch.arange(plan.shape[1] * block, device=plan.device).unflatten(0, (-1, block))  # (N, C)
        key = block_attention.places(plan, size=block, keys=plan.shape[1] * block)[0]  # (N, J C)
        near = (
            (key[:, None] >= 0) & (key[:, None] < tokens) & ((key[:, None] - query[..., None]).abs() <= self.spec.reach)
        )
        asked, told = query.clamp(max=tokens - 1), key.clamp(0, tokens - 1)
        beside = near & (~central.marked & _real(ctx))[:, told][:, :, None]
        shared = (central.place < tokens)[:, None, None].expand(-1, *query.shape, -1)
        if ctx.segments is not None:
            segment, of_central = ctx.segments, ctx.segments.gather(1, central.place.clamp(max=tokens - 1))
            beside = beside & (segment[:, asked, None] == segment[:, told][:, :, None])
            shared = shared & (segment[:, asked, None] == of_central[:, None, None])
        seen = torch.cat([beside, shared], -1)
        itself = torch.cat(
            [key[:, None] == query[..., None], query.new_zeros(*query.shape, shared.shape[-1]).bool()], -1
        )
        return (seen | (~seen.any(-1, keepdim=True) & itself))[
            :, None
        ]  # padding sees itself, so that it sees something

    def _from_all(
        self,
        y: Float[Tensor, "B H T K"],
        q: Float[Tensor, "B H T K"],
        k: Float[Tensor, "B H T K"],
        v: Float[Tensor, "B H T K"],
        ctx: Context,
        central: Central,
    ) -> Float[Tensor, "B H T K"]:
        """Returns ``y`` with what the global tokens make of all tokens in their places."""
        tokens = q.shape[2]
        place = central.place.clamp(max=tokens - 1)
        allowed = _real(ctx)[:, None].expand(-1, place.shape[1], -1)
        if ctx.segments is not None:
            allowed = allowed & (ctx.segments.gather(1, place)[..., None] == ctx.segments[:, None])
        pick = place[:, None, :, None].expand(-1, q.shape[1], -1, q.shape[3])
        seen = attention.attend(
            q.gather(2, pick),
            k,
            v,
            allowed=allowed[:, None],
            causal=False,
            **self.how,
        )
        into = central.place[:, None, :, None].expand_as(pick)
        return F.pad(y, (0, 0, 0, 1)).scatter(2, into, seen.to(y.dtype))[
            :, :, :tokens
        ]  # one more place for what fills up

    def _central(self, ctx: Context) -> Central:
        marked = ctx.once(("central", self.spec.leading), lambda: _marked(ctx, self.spec.leading))
        return Central(ctx.once(("their places", self.spec.leading), lambda: self._places(ctx, marked)), marked)

    def _places(self, ctx: Context, marked: Bool[Tensor, "B T"]) -> Int[Tensor, "B G"]:
        tokens = marked.shape[1]
        most = self._most(ctx) if ctx.central is None else int(marked.sum(1).max())
        place = torch.arange(tokens, device=marked.device)
        return torch.where(marked, place, tokens).sort(1).values[:, :most]

    def _most(self, ctx: Context) -> int:
        """Returns an upper bound of the first tokens of documents in any row."""
        if ctx.segments is None:
            return min(self.spec.leading, ctx.positions.shape[1])
        first = Counter()
        for document in ctx.documents:
            first[document.row] += min(self.spec.leading, document.end - document.first)
        return max(first.values())

    def mix_flops(self, tokens: int, seen: int) -> int:
        """Returns the operations of the blocks, and of the global tokens over all."""
        spec = self.spec
        block, leading = min(spec.reach, tokens), min(spec.leading, tokens)
        blocks = -(-tokens // block)
        listed = block * (1 if blocks == 1 else 3) + leading
        return self.attend_flops(blocks * block, listed) + self.attend_flops(leading, tokens)


def _marked(ctx: Context, leading: int) -> Bool[Tensor, "B T"]:
    """Returns which tokens are global."""
    if ctx.central is not None:
        return ctx.central & _real(ctx)
    if ctx.segments is not None:
        return (ctx.positions < leading) & _real(ctx)
    return (torch.arange(ctx.positions.shape[1], device=ctx.positions.device) < leading) & _real(ctx)


def _real(ctx: Context) -> Bool[Tensor, "B T"]:
    """Returns which tokens are no padding."""
    return torch.ones_like(ctx.positions, dtype=torch.bool) if ctx.real is None else ctx.real
