"""Who may look at whom: masks as functions of places, so that any part of them can be had without the whole."""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from groundup.context import Context
from groundup.errors import SpecError
from groundup.specs import Count, Size, Spec


class Mask(Spec, abstract=True):
    """Which keys a query may see, by their places in the document."""

    @property
    def window(self) -> int | None:
        """How many tokens, its own included, a query sees at most; None means all before it."""
        return None

    @property
    def near(self) -> tuple[int, int] | None:
        """How many tokens before it and after it a query sees at most; None means that some see any number."""
        return None

    @property
    def order_alone(self) -> bool:
        """Whether nothing but the order of the tokens decides who sees whom."""
        return self.window is None

    @property
    def causal(self) -> bool:
        """Whether no query sees what comes after it."""
        return True

    @property
    def prefixed(self) -> bool:
        """Whether the first tokens of a row see each other where the context says so; they are then read at once."""
        return False

    def allowed(self, q: Int[Tensor, "*q"], k: Int[Tensor, "*k"]) -> Bool[Tensor, "*qk"]:
        """Returns whether a query at place ``q`` sees a key at place ``k``; negative places hold nothing."""
        raise NotImplementedError(type(self).__name__)

    def over(self, ctx: Context, *, keys: Int[Tensor, "B S"]) -> Bool[Tensor, "B 1 T S"]:
        """Returns which of the keys at places ``keys`` each query of the context sees."""
        return self.allowed(ctx.positions[:, None, :, None], keys[:, None, None, :])

    def within(self, ctx: Context) -> Bool[Tensor, "B 1 T T"] | None:
        """Returns who sees whom among the context's own tokens; None means all, up to its own place if `causal`."""
        if ctx.segments is None and self.order_alone and (self.causal or ctx.lengths is None):
            return None
        return ctx.once(repr(self), lambda: self._within(ctx))

    def _within(self, ctx: Context) -> Bool[Tensor, "B 1 T T"]:
        return self.between(ctx, slice(None), slice(None)).expand(len(ctx.positions), -1, -1, -1)

    def between(self, ctx: Context, queries: slice, keys: slice) -> Bool[Tensor, "#B 1 t s"]:
        """Returns which of some of the context's own tokens see which others."""
        if ctx.segments is None:  # one document a row: its order alone, and one mask for all rows
            place = torch.arange(ctx.positions.shape[1], device=ctx.positions.device)
            seen = self.allowed(place[queries, None], place[keys])[None, None]
        else:
            asked, held = ((t[:, queries, None], t[:, None, keys]) for t in (ctx.positions, ctx.segments))
            seen = (self.allowed(*asked) & (held[0] == held[1]))[:, None]
        if self.causal or ctx.real is None:
            return seen
        return seen & ctx.real[:, None, None, keys]


class Causal(Mask):
    """Every token sees itself and all before it."""

    def allowed(self, q: Int[Tensor, "*q"], k: Int[Tensor, "*k"]) -> Bool[Tensor, "*qk"]:
        """Returns whether ``k`` is not after ``q``."""
        return (k <= q) & (k >= 0)


class Prefix(Causal):
    """Every token sees itself and all before it, and the tokens of a prefix see each other.

    How long each row's prefix is, the context says; where it does not, there is none. Source: Raffel et al. 2020 (T5,
    arXiv:1910.10683), section 3.2.1.
    """

    @property
    def prefixed(self) -> bool:
        """True."""
        return True

    def over(self, ctx: Context, *, keys: Int[Tensor, "B S"]) -> Bool[Tensor, "B 1 T S"]:
        """Returns which of the keys at places ``keys`` each query of the context sees."""
        seen = super().over(ctx, keys=keys)
        if ctx.prefix is None:
            return seen
        inside = (keys >= 0) & (keys < ctx.prefix[:, None])
        return seen | inside[:, None, None]

    def within(self, ctx: Context) -> Bool[Tensor, "B 1 T T"] | None:
        """Returns who sees whom among the context's own tokens; None means all, up to its own place."""
        prefix = ctx.prefix
        if prefix is None:
            return super().within(ctx)
        return ctx.once(f"{self!r} of a prefix", lambda: self._of_prefix(ctx, prefix))

    def _of_prefix(self, ctx: Context, prefix: Int[Tensor, "B"]) -> Bool[Tensor, "B 1 T T"]:
        place, segments = torch.arange(ctx.positions.shape[1], device=prefix.device), ctx.segments
        seen = super().over(ctx, keys=ctx.positions) | (place < prefix[:, None])[:, None, None]
        return seen if segments is None else seen & (segments[:, None, :, None] == segments[:, None, None, :])


class Everything(Mask):
    """Every token sees every token."""

    @property
    def causal(self) -> bool:
        """False: tokens see what comes after them."""
        return False

    def allowed(self, q: Int[Tensor, "*q"], k: Int[Tensor, "*k"]) -> Bool[Tensor, "*qk"]:
        """Returns whether there is a key."""
        return (k >= 0) & (q >= 0)


class Window(Mask):
    """Every token sees itself and the ``size - 1`` before it (Beltagy et al. 2020, arXiv:2004.05150)."""

    size: Size = dataclasses.field(kw_only=False)

    @property
    def window(self) -> int | None:
        """How many tokens, its own included, a query sees at most."""
        return self.size

    @property
    def near(self) -> tuple[int, int]:
        """How many tokens before it and after it a query sees at most."""
        return self.size - 1, 0

    def allowed(self, q: Int[Tensor, "*q"], k: Int[Tensor, "*k"]) -> Bool[Tensor, "*qk"]:
        """Returns whether ``k`` is among the last ``size`` places up to ``q``."""
        return (k <= q) & (k > q - self.size) & (k >= 0)


class Near(Mask):
    """Every token sees itself, the ``reach`` tokens before it and the ``reach`` after it."""

    reach: Size = dataclasses.field(kw_only=False)

    @property
    def window(self) -> int | None:
        """How many tokens, its own included, a query sees at most."""
        return 2 * self.reach + 1

    @property
    def near(self) -> tuple[int, int]:
        """How many tokens before it and after it a query sees at most."""
        return self.reach, self.reach

    @property
    def causal(self) -> bool:
        """False: tokens see what comes after them."""
        return False

    def allowed(self, q: Int[Tensor, "*q"], k: Int[Tensor, "*k"]) -> Bool[Tensor, "*qk"]:
        """Returns whether ``k`` is at most ``reach`` places away."""
        return ((k - q).abs() <= self.reach) & (k >= 0) & (q >= 0)


class Chunks(Mask):
    """Every token sees those before it in its chunk of ``size`` and in the ``before`` chunks before that one."""

    size: Size = dataclasses.field(kw_only=False)
    before: Count = 1

    @property
    def window(self) -> int:
        """How many tokens, its own included, a query sees at most."""
        return (self.before + 1) * self.size

    @property
    def near(self) -> tuple[int, int]:
        """How many tokens before it and after it a query sees at most."""
        return self.window - 1, 0

    def allowed(self, q: Int[Tensor, "*q"], k: Int[Tensor, "*k"]) -> Bool[Tensor, "*qk"]:
        """Returns whether ``k`` is not after ``q``, and in a chunk that it sees."""
        return (k <= q) & (k // self.size >= q // self.size - self.before) & (k >= 0)


class Graph(Mask):
    """Every token sees itself and its neighbours in a graph whose nodes are the places of a text.

    Source: Velickovic et al. 2017 (arXiv:1710.10903), section 2.1.

    Attributes:
        edges: pairs of places; the second of each sees the first, and the first the second only where a pair says so.
    """

    edges: tuple[tuple[Count, Count], ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.edges:
            raise SpecError("a Graph without edges lets nobody see anybody; give it edges")

    @property
    def order_alone(self) -> bool:
        """False: the edges decide."""
        return False

    @property
    def causal(self) -> bool:
        """False: tokens see what comes after them."""
        return False

    def allowed(self, q: Int[Tensor, "*q"], k: Int[Tensor, "*k"]) -> Bool[Tensor, "*qk"]:
        """Returns whether there is an edge from ``k`` to ``q``, or they are one; places beyond the graph have none."""
        first, second = torch.tensor(self.edges, device=q.device).unbind(1)
        nodes = 1 + max(max(edge) for edge in self.edges)
        beside = torch.zeros(nodes + 1, nodes + 1, dtype=torch.bool, device=q.device)
        beside[second, first] = True
        return (beside[q.clamp(0, nodes), k.clamp(0, nodes)] | (k == q)) & (k >= 0) & (q >= 0)
