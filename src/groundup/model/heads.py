"""What makes logits of the last hidden states."""

from __future__ import annotations

from torch import nn

from groundup.errors import SpecError
from groundup.parts.linear import Linear, TiedHead
from groundup.specs import Spec


class Head(Spec, abstract=True):
    """What makes logits of the last hidden states: cap * tanh(W (D^p h) / cap).

    Attributes:
        width_power: hidden states are multiplied by the width to this power first (-1/2 in T5's tied heads).
        cap: what logits are bent to stay below (Gemma 2, arXiv:2408.00118, section 2); None leaves them as they are.
    """

    width_power: float = 0.0
    cap: float | None = None

    def __post_init__(self) -> None:
        if self.cap is not None and not self.cap > 0:
            raise SpecError(f"cap={self.cap} bends every logit to nothing; choose a cap above 0")

    def build(self, width: int, embed: nn.Embedding) -> Linear | TiedHead:
        """Returns the module for a stream of ``width`` and the vocabulary of ``embed``."""
        raise NotImplementedError(type(self).__name__)


class Untied(Head):
    """A linear map of its own, with a bias where ``bias`` is true."""

    bias: bool = False

    def build(self, width: int, embed: nn.Embedding) -> Linear:
        """Returns the linear map."""
        return Linear(width, embed.num_embeddings, bias=self.bias, role="head")


class Tied(Head):
    """The token embedding read backwards (Press and Wolf 2017, arXiv:1608.05859)."""

    def build(self, width: int, embed: nn.Embedding) -> TiedHead:
        """Returns a head that uses the weights of ``embed``."""
        return TiedHead(embed)
