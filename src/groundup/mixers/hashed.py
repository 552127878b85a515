"""Attention of each token to those that hash alike, whose queries are keys too.

    out = W_o concat_h attend(W_q x, W_v x)     with the attention of `groundup.ops.hashed_attention`

A text of at most one chunk is read whole, every token all before it. Every document is read by itself, whatever it is
packed or padded with. Source: Kitaev et al. 2020 (Reformer, arXiv:2001.04451), section 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from groundup.context import Context
from groundup.errors import SpecError
from groundup.mixers import documents
from groundup.mixers.base import Mixer, MixerSpec
from groundup.ops import block_attention, hashed_attention
from groundup.parts.linear import Linear
from groundup.specs import Count, Seed, ShareBelowOne, Size
from groundup.state import State


class HashedAttention(MixerSpec):
    """Attention to the tokens that hash alike.

    Attributes:
        heads: the number of heads.
        head_width: the width of one head.
        factors: of the number of buckets, each even; a token is hashed into one of so many for each of them.
        rounds: how often tokens are hashed.
        chunk: the tokens of a chunk.
        before: how many chunks before its own a token sees.
        seed: of the random directions, the same in every layer of the same seed.
        dropout: the chance of each attention weight to be dropped in training.
    """

    heads: Size
    head_width: Size
    factors: tuple[Size, ...]
    rounds: Size = 1
    chunk: Size = 64
    before: Count = 1
    seed: Seed = 0
    dropout: ShareBelowOne = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.factors or any(count % 2 for count in self.factors):
            raise SpecError(
                f"factors={self.factors} of buckets come in opposite pairs; give even numbers, at least one"
            )

    @property
    def hides(self) -> bool:
        """True: no token sees what comes after it."""
        return True

    @property
    def steady(self) -> bool:
        """False: which tokens of the past are near enough depends on all that are sorted with them."""
        return False

    def build(self, width: int) -> HashedMixer:
        """Returns the module for a stream of ``width``."""
        return HashedMixer(self, width)


@dataclass
class HashedState(State):
    """All queries, which are keys too, values and buckets, each in the slot of its place."""

    q: Float[Tensor, "B H S K"]
    v: Float[Tensor, "B H S K"]
    bucket: Int[Tensor, "B H S R"]

    @property
    def rewinds(self) -> bool:
        """False: what later tokens of a prompt did to the sight of earlier ones cannot be taken back."""
        return False


class HashedMixer(Mixer):
    """The module of `HashedAttention`."""

    def __init__(self, spec: HashedAttention, width: int) -> None:
        super().__init__()
        self.spec = spec
        inside = spec.heads * spec.head_width
        self.q = Linear(width, inside, bias=False, role="in")
        self.v = Linear(width, inside, bias=False, role="in")
        self.out = Linear(inside, width, bias=False, role="out")
        draw = torch.Generator("cpu").manual_seed(spec.seed)
        size = (spec.heads, spec.head_width, spec.rounds, sum(spec.factors) // 2)
        self.turns = torch.randn(size, generator=draw, dtype=torch.float32, device="cpu")  # of the spec, no weights

    def forward(  # pyrefly: ignore[bad-override]: a mixer is given the kind of state that it makes
        self, x: Float[Tensor, "B T D"], ctx: Context, state: HashedState | None = None
    ) -> Float[Tensor, "B T D"]:
        """Returns the attended stream; with a state, each token as the last of its text, or the text as a whole."""
        q, v = (made(x).unflatten(-1, (self.spec.heads, -1)).transpose(1, 2) for made in (self.q, self.v))
        # Found once: where layers are computed again, rounding must not bring a token into another bucket.
        bucket = ctx.once(("buckets", id(self)), partial(self._buckets, q))
        if state is not None:
            row = torch.arange(q.shape[0], device=q.device)[:, None]
            for kept, new in ((state.q, q), (state.v, v), (state.bucket, bucket)):
                kept.transpose(1, 2).index_put_((row, ctx.positions), new.transpose(1, 2).to(kept.dtype))
        if state is None or ctx.reach == x.shape[1]:  # all rows begin here
            y = documents.each(self._read, q, v, bucket, ctx=ctx)
        else:
            y = torch.stack([self._last(q[:, :, t], state, ctx.positions[:, t]) for t in range(x.shape[1])], 2)
        return self.out(y.transpose(1, 2).flatten(2))

    def _buckets(self, q: Float[Tensor, "B H T K"]) -> Int[Tensor, "B H T R"]:
        return hashed_attention.buckets(q, self.turns.to(q.device), self.spec.factors).int()

    def _read(
        self, q: Float[Tensor, "B H T K"], v: Float[Tensor, "B H T K"], bucket: Int[Tensor, "B H T R"]
    ) -> Float[Tensor, "B H T K"]:
        """Returns the attention of one document a row."""
        spec, tokens = self.spec, q.shape[2]
        chunk, before = spec.chunk, spec.before
        if tokens <= chunk:  # one chunk, one round
            chunk, before, bucket = tokens, 0, torch.zeros_like(bucket[..., :1])
        spare = (0, 0, 0, -tokens % chunk)
        return hashed_attention.attend(
            F.pad(q, spare),
            F.pad(v, spare),
            F.pad(bucket, spare, value=math.prod(spec.factors)),
            chunk=chunk,
            before=before,
            real=tokens,
            dropout=spec.dropout if self.training else 0.0,
        )[:, :, :tokens]

    def _last(self, q: Float[Tensor, "B H K"], state: HashedState, place: Int[Tensor, "B"]) -> Float[Tensor, "B H K"]:
        kept = (state.q.to(q.dtype), state.v.to(q.dtype), state.bucket)
        return hashed_attention.last(q, *kept, place, chunk=self.spec.chunk, before=self.spec.before)

    def new_state(
        self, rows: int, max_len: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> HashedState:
        """Returns the state of ``rows`` rows that have read nothing, with room for ``max_len`` tokens."""
        size = (rows, self.spec.heads, max_len, self.spec.head_width)
        q, v = (torch.zeros(size, device=device, dtype=dtype) for _ in "qv")
        bucket = torch.zeros((*size[:3], self.spec.rounds), device=device, dtype=torch.int32)
        return HashedState(q=q, v=v, bucket=bucket)

    def mix_flops(self, tokens: int, seen: int) -> int:
        """Returns the operations of hashing, scores and weighted sums."""
        return self._hashing_flops(tokens) + self._attend_flops(tokens, seen)

    def mix_backward_flops(self, tokens: int, seen: int) -> int:
        """Returns those of the backward: buckets have none."""
        return 2 * self._attend_flops(tokens, seen)

    def _hashing_flops(self, tokens: int) -> int:
        spec = self.spec
        return spec.heads * 2 * tokens * spec.head_width * spec.rounds * (sum(spec.factors) // 2)

    def _attend_flops(self, tokens: int, seen: int) -> int:
        """The operations of scores and weighted sums."""
        spec = self.spec
        widths = {"key_width": spec.head_width, "value_width": spec.head_width}
        if tokens == seen <= spec.chunk:
            return spec.heads * block_attention.flops(tokens, tokens, **widths)
        counted = tokens + -tokens % spec.chunk if tokens == seen else tokens
        sizes = {"rounds": spec.rounds, "chunk": spec.chunk, "before": spec.before}
        return spec.heads * hashed_attention.flops(counted, **sizes, **widths)
