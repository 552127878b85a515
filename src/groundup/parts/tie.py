"""Weights that several modules use: one of them owns them, the others borrow its modules, all but what is their own.

A borrower has none of what it borrows among its parameters or in its ``state_dict``, so shared weights are counted,
saved and trained once. Sources: Dehghani et al. 2018 (Universal Transformer, arXiv:1807.03819); Lan et al. 2019
(ALBERT, arXiv:1909.11942), section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from groundup.parts.linear import Linear


class Own(nn.Module):
    """A module whose weights each user has for itself, though all around it be shared."""


class Borrowed(nn.Module):
    """Stands where another module's child is used; what it is asked for, it asks of that."""

    def __init__(self, owner: nn.Module, name: str) -> None:
        super().__init__()
        self._owner = (owner,)  # in a tuple, so that the owner stays the only one
        self._name = name

    @property
    def lent(self) -> nn.Module:
        """The module that is used."""
        return getattr(self._owner[0], self._name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            return super().__getattr__(name)
        return getattr(self.lent, name)

    def forward(self, *args: Any) -> Any:
        """Returns what the module makes of these."""
        return self.lent(*args)


def lend(owner: nn.Module, borrower: nn.Module) -> None:
    """Replaces what a module of the same kind holds by what ``owner`` holds, but for what is its `Own`."""
    for name, child in list(borrower.named_children()):
        if isinstance(child, Own):
            continue
        if any(isinstance(part, Own) for part in child.modules()):
            lend(owner.get_submodule(name), child)
        elif next(child.parameters(), None) is not None:
            setattr(borrower, name, Borrowed(owner, name))


def used(module: nn.Module) -> Iterator[nn.Module]:
    """Yields a module and all within it, as ``modules()`` does, and what is borrowed each time that it is used."""
    for part in module.modules():
        yield part
        if isinstance(part, Borrowed):
            yield from used(part.lent)


class LowRank(Own):
    """y = W_2 W_1 x through a narrow width, for each user itself (Hu et al. 2021, LoRA, arXiv:2106.09685)."""

    def __init__(self, inputs: int, outputs: int, *, rank: int) -> None:
        super().__init__()
        self.low = Linear(inputs, rank, bias=False, role="in")
        self.high = Linear(rank, outputs, bias=False, role="in")

    def forward(self, x: Float[Tensor, "*rows _"]) -> Float[Tensor, "*rows _"]:
        """Returns the map."""
        return self.high(self.low(x))


class Adapted(nn.Module):
    """A linear map that users share, and a narrow one that each has for itself: y = W x + W_2 W_1 x."""

    def __init__(self, shared: Linear, *, rank: int) -> None:
        super().__init__()
        self.shared = shared
        self.own = LowRank(shared.in_features, shared.out_features, rank=rank)

    def forward(self, x: Float[Tensor, "*rows _"]) -> Float[Tensor, "*rows _"]:
        """Returns the sum of both maps."""
        return self.shared(x) + self.own(x)
