"""What makes logits of the last hidden states."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from groundup.errors import SpecError
from groundup.parts.act import Act, activation
from groundup.parts.linear import Lender, Linear, TiedHead
from groundup.parts.norm import LayerNorm, Norm
from groundup.specs import Positive, Size, Spec


class Transform(Spec, abstract=True):
    """What is done to hidden states before the head's matrix."""

    def made_width(self, width: int) -> int:
        """Returns the width of what is made of hidden states of ``width``."""
        return width

    def build(self, width: int) -> nn.Module:
        """Returns the module for hidden states of ``width``."""
        raise NotImplementedError(type(self).__name__)


class NoTransform(Transform):
    """Leaves hidden states as they are."""

    def build(self, width: int) -> nn.Module:
        """Returns the identity."""
        return nn.Identity()


class Dense(Transform):
    """A linear map, an activation and a norm (Devlin et al. 2019, BERT's prediction head).

    Attributes:
        act: the activation, a key of `groundup.parts.act.ACTIVATIONS`.
        norm: the norm after it.
        bias: whether the map has a bias.
    """

    act: Act = "gelu"
    norm: Norm = LayerNorm()
    bias: bool = True

    def build(self, width: int) -> nn.Module:
        """Returns the module for hidden states of ``width``."""
        return DenseTransform(self, width)


class DenseTransform(nn.Module):
    """The module of `Dense`."""

    def __init__(self, spec: Dense, width: int) -> None:
        super().__init__()
        self.dense = Linear(width, width, bias=spec.bias, role="in")
        self.act = activation(spec.act)
        self.norm = spec.norm.build(width)

    def forward(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        """Returns the transformed hidden states."""
        return self.norm(self.act(self.dense(x)))


class Project(Transform):
    """A linear map without bias to the width of a table that is narrower than the stream.

    Attributes:
        table_width: the width of the table, as `groundup.parts.embed.NarrowEmbed` has it.
    """

    table_width: Size

    def made_width(self, width: int) -> int:
        """Returns the width of the table."""
        return self.table_width

    def build(self, width: int) -> Linear:
        """Returns the module for hidden states of ``width``."""
        return Linear(width, self.table_width, bias=False, role="in")


class Head(Spec, abstract=True):
    """What makes logits of the last hidden states: cap * tanh((W D^p transform(h) + b) / cap).

    Attributes:
        transform: what is done to hidden states before the matrix.
        bias: whether logits have a bias.
        width_power: hidden states are multiplied by the width to this power first (-1/2 in T5's tied heads).
        cap: what logits are bent to stay below (Gemma 2, arXiv:2408.00118, section 2); None leaves them as they are.
    """

    transform: Transform = NoTransform()
    bias: bool = False
    width_power: float = 0.0
    cap: Positive | None = None

    @property
    def tied(self) -> bool:
        """Whether its matrix is the token embedding."""
        return False

    def build(self, width: int, embed: Lender) -> Linear | TiedHead:
        """Returns the module for a stream of ``width`` and the vocabulary of ``embed``."""
        raise NotImplementedError(type(self).__name__)


class NoHead(Head):
    """Leaves the hidden states as they are, for a model whose states are what is wanted."""

    def build(self, width: int, embed: Lender) -> Any:
        """Returns the identity, which has no weights to be trained by."""
        return nn.Identity()


class Untied(Head):
    """A linear map of its own."""

    def build(self, width: int, embed: Lender) -> Linear:
        """Returns the linear map."""
        return Linear(self.transform.made_width(width), embed.num_embeddings, bias=self.bias, role="head")


class Tied(Head):
    """The token embedding read backwards (Press and Wolf 2017, arXiv:1608.05859)."""

    @property
    def tied(self) -> bool:
        """True."""
        return True

    def build(self, width: int, embed: Lender) -> TiedHead:
        """Returns a head that uses the weights of ``embed``."""
        return TiedHead(embed, bias=nn.Parameter(torch.zeros(embed.num_embeddings)) if self.bias else None)


class Shifted(Head):
    """The token embedding read backwards, with a bias that is given and never trained.

    Source: the final_logits_bias of transformers' BART and Marian; zero in BART.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bias:
            raise SpecError("Shifted has its own bias, which is not trained; drop bias, or use Tied(bias=True)")

    @property
    def tied(self) -> bool:
        """True."""
        return True

    def build(self, width: int, embed: Lender) -> TiedHead:
        """Returns a head that uses the weights of ``embed``."""
        return TiedHead(embed, bias=nn.Buffer(torch.zeros(embed.num_embeddings)))
