"""What makes one vector of a text's hidden states."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from groundup.parts.linear import Linear
from groundup.specs import Count, Spec


class Pool(Spec, abstract=True):
    """What makes one vector of a text's hidden states with weights of its own."""

    def build(self, width: int) -> nn.Module:
        """Returns the module for hidden states of ``width``."""
        raise NotImplementedError(type(self).__name__)


class NoPool(Pool):
    """Makes none."""

    def build(self, width: int) -> nn.Module:
        """Returns the identity."""
        return nn.Identity()


class FirstToken(Pool):
    """A linear map and tanh of the first token (Devlin et al. 2019, BERT, section 3.1).

    Attributes:
        classes: into how many classes the vector is sorted then (2 for whether one text follows another); 0 leaves it.
    """

    classes: Count = 0

    def build(self, width: int) -> nn.Module:
        """Returns the module for hidden states of ``width``."""
        return FirstTokenPool(self, width)


class FirstTokenPool(nn.Module):
    """The module of `FirstToken`."""

    def __init__(self, spec: FirstToken, width: int) -> None:
        super().__init__()
        self.dense = Linear(width, width, bias=True, role="in")
        self.classes = Linear(width, spec.classes, bias=True, role="head") if spec.classes else nn.Identity()

    def forward(self, hidden: Float[Tensor, "B T D"]) -> Float[Tensor, "B C"]:
        """Returns the scores of the classes, or the vector of width D where there are none."""
        return self.classes(torch.tanh(self.dense(hidden[:, 0])))
