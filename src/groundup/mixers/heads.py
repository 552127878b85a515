"""What mixers with heads share: heads that serve several, and the maps of heads that have all of their own."""

from __future__ import annotations

from typing import TypedDict

from jaxtyping import Float
from torch import Tensor

from groundup.errors import SpecError
from groundup.mixers.base import Mixer
from groundup.ops import block_attention
from groundup.parts.linear import Linear

MOST_HEADS = 10_000  # that are tried for a number that fits


def check_shared(heads: int, **shared: int) -> None:
    """Refuses heads of keys that do not serve as many heads of queries or values each.

    Args:
        heads: how many are served.
        shared: how many serve them, by the name of the field.

    Raises:
        SpecError: they do not divide; the message says which would.
    """
    for name, count in shared.items():
        if heads % count:
            fit = ", ".join(str(n) for n in range(1, min(heads, MOST_HEADS) + 1) if heads % n == 0)
            raise SpecError(f"heads={heads} is not a multiple of {name}={count}; choose {name} from {fit}")


class How(TypedDict):
    """How queries meet keys."""

    scale: float
    dropout: float


class HeadsMixer(Mixer):
    """Maps to the queries, keys and values of heads; what attends, and the map back, is its subclass's.

    Attributes:
        count: the number of heads.
        head_width: the width of one head.
        dropout: the chance of each attention weight to be dropped in training.
    """

    def __init__(self, width: int, *, heads: int, head_width: int, bias: bool, dropout: float) -> None:
        super().__init__()
        self.count, self.head_width, self.dropout = heads, head_width, dropout
        self.inside = heads * head_width
        self.q = Linear(width, self.inside, bias=bias, role="in")
        self.k = Linear(width, self.inside, bias=bias, role="in")
        self.v = Linear(width, self.inside, bias=bias, role="in")

    def heads(self, made: Linear, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B H T K"]:
        """Returns what a map makes of the stream, head by head."""
        return made(x).unflatten(-1, (self.count, -1)).transpose(1, 2)

    @property
    def how(self) -> How:
        """How queries and keys are scored, and what is dropped now."""
        return {"scale": self.head_width**-0.5, "dropout": self.dropout if self.training else 0.0}

    def attend_flops(self, queries: int, keys: int) -> int:
        """Returns the operations of all heads' scores and sums, each query over so many keys."""
        return self.count * block_attention.flops(queries, keys, key_width=self.head_width, value_width=self.head_width)
