"""What makes logits of the last hidden states."""

from __future__ import annotations

from torch import nn

from groundup.parts.linear import Linear, TiedHead
from groundup.specs import Spec


class Head(Spec, abstract=True):
    """What makes logits of the last hidden states."""

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
