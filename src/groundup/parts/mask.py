"""Who may look at whom: masks as functions of places, so that any part of them can be had without the whole."""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from groundup.context import Context
from groundup.specs import Size, Spec


class Mask(Spec, abstract=True):
    """Which keys a query may see, by their places in the document."""

    @property
    def window(self) -> int | None:
        """How many tokens, its own included, a query sees at most; None means all before it."""
        return None

    @property
    def causal(self) -> bool:
        """Whether no query sees what comes after it."""
        return True

    def allowed(self, q: Int[Tensor, "*q"], k: Int[Tensor, "*k"]) -> Bool[Tensor, "*qk"]:
        """Returns whether a query at place ``q`` sees a key at place ``k``; negative places hold nothing."""
        raise NotImplementedError(type(self).__name__)

    def over(self, ctx: Context, *, keys: Int[Tensor, "B S"]) -> Bool[Tensor, "B 1 T S"]:
        """Returns which of the keys at places ``keys`` each query of the context sees."""
        return self.allowed(ctx.positions[:, None, :, None], keys[:, None, None, :])

    def within(self, ctx: Context) -> Bool[Tensor, "B 1 T T"] | None:
        """Returns who sees whom among the context's own tokens; None means all, up to its own place if `causal`."""
        if ctx.segments is None and self.window is None and (self.causal or ctx.lengths is None):
            return None
        return ctx.once(repr(self), lambda: self._within(ctx))

    def _within(self, ctx: Context) -> Bool[Tensor, "B 1 T T"]:
        rows, tokens = ctx.positions.shape
        place = torch.arange(tokens, device=ctx.positions.device)
        if ctx.segments is None:  # one document a row: its order alone, and one mask for all rows
            seen = self.allowed(place[:, None], place).expand(rows, 1, tokens, tokens)
        else:
            seen = self.over(ctx, keys=ctx.positions)
            seen = seen & (ctx.segments[:, None, :, None] == ctx.segments[:, None, None, :])
        if self.causal or ctx.real is None:
            return seen
        return seen & ctx.real[:, None, None]


class Causal(Mask):
    """Every token sees itself and all before it."""

    def allowed(self, q: Int[Tensor, "*q"], k: Int[Tensor, "*k"]) -> Bool[Tensor, "*qk"]:
        """Returns whether ``k`` is not after ``q``."""
        return (k <= q) & (k >= 0)


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

    def allowed(self, q: Int[Tensor, "*q"], k: Int[Tensor, "*k"]) -> Bool[Tensor, "*qk"]:
        """Returns whether ``k`` is among the last ``size`` places up to ``q``."""
        return (k <= q) & (k > q - self.size) & (k >= 0)


class Around(Mask):
    """Every token sees those at most ``size`` places away, before it and after (Beltagy et al. 2020, section 3.1)."""

    size: Size = dataclasses.field(kw_only=False)

    @property
    def window(self) -> int | None:
        """How many tokens, its own included, a query sees at most."""
        return 2 * self.size + 1

    @property
    def causal(self) -> bool:
        """False: tokens see what comes after them."""
        return False

    def allowed(self, q: Int[Tensor, "*q"], k: Int[Tensor, "*k"]) -> Bool[Tensor, "*qk"]:
        """Returns whether ``k`` is at most ``size`` places from ``q``."""
        return ((k - q).abs() <= self.size) & (k >= 0)
