"""Softmax attention with shared key/value heads: multi-head, grouped and multi-query are values of ``kv_heads``.

    out = W_o concat_h attend(R(N(W_q x)), R(N(W_k x)), W_v x)
    R turns by place, N norms queries and keys.

Sources: Vaswani et al. 2017 (arXiv:1706.03762), section 3.2; Shazeer 2019 (arXiv:1911.02150); Ainslie et al. 2023
(arXiv:2305.13245). Letters: H heads, G key/value heads, K head width.
"""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.context import Context
from groundup.mixers.base import Mixer, MixerSpec
from groundup.mixers.heads import check_shared
from groundup.mixers.kv import KVState, WindowState
from groundup.ops.slices import slices
from groundup.parts.linear import Linear
from groundup.parts.mask import Causal, Mask
from groundup.parts.norm import NoNorm, NormOfHeads
from groundup.parts.position import Position, RoPE
from groundup.parts.score import Scaled, Score
from groundup.specs import Positive, ShareBelowOne, Size
from groundup.state import State

SPAN = 256  # queries that read their keys together at least: fewer make products that are slow


class Attention(MixerSpec):
    """Softmax attention with shared key/value heads.

    Attributes:
        heads: heads of queries.
        kv_heads: heads of keys and values; each serves ``heads / kv_heads`` heads of queries.
        head_width: the width of one head.
        mask: who sees whom.
        position: how queries and keys learn their places.
        norm: the norm of queries and keys.
        score: how queries score keys.
        bias: whether queries, keys and values have a bias.
        out_bias: whether the output has a bias.
        dropout: the chance of each attention weight to be dropped in training.
    """

    heads: Size
    kv_heads: Size
    head_width: Size
    mask: Mask = Causal()
    position: Position = RoPE()
    norm: NormOfHeads = NoNorm()
    score: Score = Scaled()
    bias: bool = False
    out_bias: bool = False
    dropout: ShareBelowOne = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shared(self.heads, kv_heads=self.kv_heads)
        self.position.of_heads(self.heads, self.head_width)  # refuses heads that it has no places for

    @property
    def causal(self) -> bool:
        """Whether no token sees what comes after it: the mask says so."""
        return self.mask.causal

    @property
    def hides(self) -> bool:
        """Whether tokens do not see what comes after them: the mask says so."""
        return self.mask.causal

    @property
    def bias_heads(self) -> int | None:
        """How many heads read a bias that layers share; None means that none does."""
        return self.heads if self.position.reads_bias else None

    @property
    def prefixed(self) -> bool:
        """Whether the first tokens of a row see each other where the context says so: the mask says it."""
        return self.mask.prefixed

    @property
    def steady_until(self) -> int | None:
        """The longest text whose pieces give the whole: the position says it."""
        return self.position.steady_until

    def build(self, width: int) -> AttentionMixer:
        """Returns the module for a stream of ``width``."""
        return AttentionMixer(self, width)


def spans_of(tokens: int, mask: Mask) -> list[tuple[slice, slice]]:
    """Returns spans of a whole text's queries, each with the keys that they may see; none where that saves nothing.

    Where a mask lets a query see only what is near, the time and memory of all spans grow with the text, not with its
    square.
    """
    if mask.near is None:
        return []
    before, after = mask.near
    size = max(SPAN, (before + after) // 2)
    if tokens < 2 * (before + after + size):
        return []
    starts = range(0, tokens, size)
    stops = [min(start + size, tokens) for start in starts]
    every = zip(starts, stops, strict=True)
    return [(slice(a, b), slice(max(0, a - before), min(tokens, b + after))) for a, b in every]


class AttentionMixer(Mixer):
    """The module of `Attention`."""

    def __init__(self, spec: Attention, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.q = Linear(width, spec.heads * spec.head_width, bias=spec.bias, role="in")
        self.k = Linear(width, spec.kv_heads * spec.head_width, bias=spec.bias, role="in")
        self.v = Linear(width, spec.kv_heads * spec.head_width, bias=spec.bias, role="in")
        self.out = Linear(spec.heads * spec.head_width, width, bias=spec.out_bias, role="out")
        self.q_norm = spec.norm.of_heads(spec.heads, spec.head_width)
        self.k_norm = spec.norm.of_heads(spec.kv_heads, spec.head_width)
        self.position = spec.position.of_heads(spec.heads, spec.head_width)
        self.score = spec.score.build(spec.heads, spec.head_width)
        self.mask_key = f"{spec.mask!r} over a state"

    def forward(  # pyrefly: ignore[bad-override]: a mixer is given the kind of state that it makes
        self, x: Float[Tensor, "B T D"], ctx: Context, state: KVState | WindowState | None = None
    ) -> Float[Tensor, "B T D"]:
        """Returns the attended stream; with a state, over all that it holds and these tokens."""
        return self.out(self.heads(x, ctx, state))

    def heads(
        self, x: Float[Tensor, "B T D"], ctx: Context, state: KVState | WindowState | None
    ) -> Float[Tensor, "B T HK"]:
        """Returns what all heads read, side by side."""
        q, k, v = (y.unflatten(-1, (-1, self.spec.head_width)) for y in self.maps(x))
        q = self.position(self.q_norm(q), ctx).transpose(1, 2)  # (B, H, T, K)
        k = self.position(self.k_norm(k), ctx).transpose(1, 2)  # (B, G, T, K)
        v = v.transpose(1, 2)
        places, whole, mask = ctx.positions, state is None, self.spec.mask
        if state is not None:
            k, v, places = state.append(k, v, ctx)
            k, v = k.to(q.dtype), v.to(q.dtype)
            whole = k.shape[2] == ctx.reach == x.shape[1]  # all rows begin here, and no mask is the fastest one
        read = partial(self.score, causal=mask.causal, dropout=self.spec.dropout if self.training else 0.0)
        if whole and (spans := self.spans(x.shape[1])):
            asked, seen = zip(*spans, strict=True)
            y = []
            for *given, (of_q, of_k) in zip(slices(q, asked), slices(k, seen), slices(v, seen), spans, strict=True):
                allowed = ctx.once((repr(mask), of_q.start), partial(mask.between, ctx, of_q, of_k))
                y.append(read(*given, allowed=allowed, bias=None))
            return torch.cat(y, 2).transpose(1, 2).flatten(2)
        allowed = mask.within(ctx) if whole else ctx.once(self.mask_key, lambda: mask.over(ctx, keys=places))
        y = read(q, k, v, allowed=allowed, bias=self.position.bias(ctx, places))
        return y.transpose(1, 2).flatten(2)

    def spans(self, tokens: int) -> list[tuple[slice, slice]]:
        """Returns the spans in which a whole text is read; none where it is read at once, as under any bias."""
        return [] if self.position.biased else spans_of(tokens, self.spec.mask)

    def maps(
        self, x: Float[Tensor, "B T D"]
    ) -> tuple[Float[Tensor, "B T HK"], Float[Tensor, "B T GK"], Float[Tensor, "B T GK"]]:
        """Returns the queries, keys and values of all heads, side by side."""
        return self.q(x), self.k(x), self.v(x)

    def new_state(
        self, rows: int, max_len: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """Returns empty keys and values for ``rows`` rows: ``max_len`` slots, or those of the window if fewer.

        Attention that is not causal reads all at once and remembers nothing.
        """
        if not self.spec.causal:
            return State()
        window = self.spec.mask.window or max_len + 1
        size = (rows, self.spec.kv_heads, min(window, max_len), self.spec.head_width)
        k, v = (torch.zeros(size, device=device, dtype=dtype) for _ in "kv")
        return WindowState(k=k, v=v) if window <= max_len else KVState(k=k, v=v)

    def mix_flops(self, tokens: int, seen: int) -> int:
        """Returns the operations of scores and weighted sums: 2 T S K each and head, nothing saved by the mask.

        A window saves what none of a span of tokens sees, and with a state what that no longer holds.
        """
        window, sinks = self.spec.mask.window, self.score.sinks
        keys = seen if window is None else min(seen, window + tokens - 1)
        pairs = tokens * (keys + sinks)
        if tokens == seen and (spans := self.spans(tokens)):
            pairs = sum((a.stop - a.start) * (s.stop - s.start + sinks) for a, s in spans)
        return 2 * self.score.products * self.spec.heads * self.spec.head_width * pairs


class GatedAttention(Attention):
    """Attention whose heads are multiplied by gates that the token chooses (Qiu et al. 2025, arXiv:2505.06708)."""

    def build(self, width: int) -> GatedAttentionMixer:
        """Returns the module for a stream of ``width``."""
        return GatedAttentionMixer(self, width)


class GatedAttentionMixer(AttentionMixer):
    """The module of `GatedAttention`."""

    def __init__(self, spec: GatedAttention, width: int) -> None:
        super().__init__(spec, width)
        self.gate = Linear(width, spec.heads * spec.head_width, bias=spec.bias, role="in")

    def heads(
        self, x: Float[Tensor, "B T D"], ctx: Context, state: KVState | WindowState | None
    ) -> Float[Tensor, "B T HK"]:
        """Returns what all heads read, side by side, through their gates."""
        return super().heads(x, ctx, state) * self.gate(x).sigmoid()


class ClippedAttention(Attention):
    """Attention whose queries, keys and values are cut off beyond ``limit``, before they are turned.

    Source: the published configurations of OLMo 7B 0424 and of MPT-7B-StoryWriter, which call it clip_qkv.
    """

    limit: Positive

    def build(self, width: int) -> ClippedAttentionMixer:
        """Returns the module for a stream of ``width``."""
        return ClippedAttentionMixer(self, width)


class ClippedAttentionMixer(AttentionMixer):
    """The module of `ClippedAttention`."""

    def __init__(self, spec: ClippedAttention, width: int) -> None:
        super().__init__(spec, width)
        self.limit = spec.limit

    def maps(
        self, x: Float[Tensor, "B T D"]
    ) -> tuple[Float[Tensor, "B T HK"], Float[Tensor, "B T GK"], Float[Tensor, "B T GK"]]:
        """Returns the queries, keys and values of all heads, side by side, none beyond the limit."""
        q, k, v = (y.clamp(-self.limit, self.limit) for y in super().maps(x))
        return q, k, v
