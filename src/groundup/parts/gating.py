"""How the maps into a feed-forward network meet before the map out of it.

    Ungated:         act(u)                                    Vaswani et al. 2017 (arXiv:1706.03762), equation 2
    Product:         act(g) u                                  Shazeer 2020 (arXiv:2002.05202), equation 5
    ClampedProduct:  act(min(g, c)) (clip(u, -c, c) + b)       OpenAI 2025 (gpt-oss, arXiv:2508.10925), section 2.2

Letters: g = W_gate x, u = W_up x, c the limit, b the shift.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from groundup.specs import Positive, Spec

Hidden = Float[Tensor, "*rows F"]


class Gating(Spec, abstract=True):
    """How the maps into a network meet.

    Attributes:
        maps: their names.
    """

    maps: ClassVar[tuple[str, ...]] = ("gate", "up")

    def meet(self, act: Callable[[Tensor], Tensor], *into: Hidden) -> Hidden:
        """Returns what goes on: of the ``maps`` in this order, and the activation."""
        raise NotImplementedError(type(self).__name__)


class Ungated(Gating):
    """What goes up is activated; there is no gate."""

    maps: ClassVar[tuple[str, ...]] = ("up",)

    def meet(self, act: Callable[[Tensor], Tensor], *into: Hidden) -> Hidden:
        """Returns what is activated."""
        (up,) = into
        return act(up)


class Product(Gating):
    """What goes up is multiplied by the activated gate."""

    def meet(self, act: Callable[[Tensor], Tensor], *into: Hidden) -> Hidden:
        """Returns the product."""
        gate, up = into
        return act(gate) * up


class ClampedProduct(Gating):
    """A product of a gate and values that are kept within a limit.

    Attributes:
        limit: what the gate is never above and values are never beyond.
        shift: what is added to the values, so that they pass an open gate even where they are zero.
    """

    limit: Positive
    shift: float = 0.0

    def meet(self, act: Callable[[Tensor], Tensor], *into: Hidden) -> Hidden:
        """Returns the product."""
        gate, up = into
        return act(gate.clamp(max=self.limit)) * (up.clamp(-self.limit, self.limit) + self.shift)
