"""The module protocol that attention, state spaces, convolutions and MLPs share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from groundup.context import Context
from groundup.errors import SpecError
from groundup.specs import Spec
from groundup.state import State


class MixerSpec(Spec, abstract=True):
    """Describes a mixer; ``build(width)`` gives its module for a stream of that width."""

    @property
    def causal(self) -> bool:
        """Whether no token sees what comes after it, so that a sequence can be read in pieces with a state."""
        return True

    @property
    def hides(self) -> bool:
        """Whether it hides from tokens what comes after them and need not: a recurrence has no choice."""
        return False

    @property
    def reads_memory(self) -> bool:
        """Whether it reads the memory that another model made, see `Context.memory`."""
        return False

    @property
    def steady(self) -> bool:
        """Whether what is made of a token stays as it is when more tokens follow, so that pieces give the whole."""
        return True

    @property
    def steady_until(self) -> int | None:
        """The longest text whose pieces give the whole; None means any.

        All longer texts are read in one other way, so that the pieces of one give the whole if the first is longer too.
        """
        return None

    @property
    def alone(self) -> bool:
        """Whether it shares nothing with other layers and adds nothing to the loss, so it may be computed again."""
        return self.bias_heads is None

    @property
    def bias_heads(self) -> int | None:
        """How many heads of it read a bias that layers share; None means that it reads none."""
        return None

    @property
    def prefixed(self) -> bool:
        """Whether the first tokens of a row see each other where the context says so, see `Context.prefix`."""
        return False

    @property
    def longest(self) -> int | None:
        """The most tokens that it can read; None means any."""
        return None

    def build(self, width: int) -> Mixer:
        """Returns the module for a stream of ``width``; every mixer has its own.

        Raises:
            SpecError: this one has none.
        """
        raise SpecError(
            f"{type(self).__name__} has no build; define build(self, width), which returns its groundup.Mixer"
        )


class Mixer(nn.Module):
    """What a residual part computes; the defaults are those of a mixer that remembers nothing."""

    def forward(self, x: Tensor, ctx: Context, state: State | None = None) -> Tensor:
        """Returns the mixed stream (B, T, D).

        Args:
            x: the stream, (B, T, D).
            ctx: places, documents and lengths of its tokens.
            state: None reads ``x`` as whole sequences; a state continues it, in place.
        """
        raise NotImplementedError(type(self).__name__)

    def new_state(
        self, rows: int, max_len: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """Returns the state of ``rows`` rows that have read nothing, with room for ``max_len`` tokens."""
        return State()

    def remember(self, ctx: Context, *, dtype: torch.dtype | None = None) -> State | None:
        """Returns a state with what is needed of the context's memory; None from mixers that attend to none."""
        return None

    def memory_maps(self) -> Sequence[nn.Module] | None:
        """Returns its linear maps that run on the context's memory; None from mixers that attend to none."""
        return None

    def mix_flops(self, tokens: int, seen: int) -> int:
        """Returns the forward's operations for a row of ``tokens`` tokens, weight matrices excepted.

        Args:
            tokens: tokens of this call.
            seen: tokens that the last of them sees, itself included; or those of the memory that it attends to.
        """
        return 0

    def mix_backward_flops(self, tokens: int, seen: int) -> int:
        """Returns the backward's operations besides two products for each of a weight matrix: twice `mix_flops`.

        Mixers say otherwise where a side of a product needs no gradient, a constant or a first state of zeros, or where
        nothing reads what is made, as the state after a whole text. It may be below zero: a weight matrix that meets
        zeros has one product less.

        Args:
            tokens: as of `mix_flops`.
            seen: as of `mix_flops`.
        """
        return 2 * self.mix_flops(tokens, seen)
