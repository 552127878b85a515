"""What becomes of what the queries of linear attention have read, before the output's map.

    Quotient:  y / (sum of the weights)       Katharopoulos et al. 2020 (arXiv:2006.16236), equation 9
    Normed:    norm(y)
    Gated:     norm(y) * act(W x)             Sun et al. 2023 (arXiv:2307.08621), equation 8

Letters: L the width of values.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.parts.act import Act, activation
from groundup.parts.linear import Linear
from groundup.parts.norm import NormOfHeads, RMSNorm
from groundup.specs import Spec


class Reading(Spec, abstract=True):
    """What becomes of what is read."""

    def build(self, width: int, heads: int, value_width: int) -> ReadingModule:
        """Returns the module for a stream of ``width`` and so many heads with values of ``value_width``."""
        raise NotImplementedError(type(self).__name__)


class ReadingModule(nn.Module):
    """What is read, normed.

    Attributes:
        beside: how many values of its own it writes beside the token's.
    """

    beside = 0

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def values(self, v: Float[Tensor, "B T H L"]) -> Float[Tensor, "B T H M"]:
        """Returns the values that are written."""
        return v

    def forward(self, y: Float[Tensor, "B T H M"], x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T H L"]:
        """Returns what becomes of ``y``, given the stream."""
        return self.norm(y)


class Quotient(Reading):
    """Divides by the sum of the weights, so that they sum to 1; for positive features.

    The sum is one more value, which is always 1.
    """

    def build(self, width: int, heads: int, value_width: int) -> ReadingModule:
        """Returns the module, which has no parameters."""
        return QuotientModule(nn.Identity())


class QuotientModule(ReadingModule):
    """The module of `Quotient`."""

    beside = 1

    def values(self, v: Float[Tensor, "B T H L"]) -> Float[Tensor, "B T H M"]:
        """Returns the values and a 1."""
        return F.pad(v, (0, 1), value=1.0)

    def forward(self, y: Float[Tensor, "B T H M"], x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T H L"]:
        """Returns the quotient; where all weights are 0, as before the first token, what is read is 0 too."""
        weights = y[..., -1:]
        return y[..., :-1] / weights.masked_fill(weights == 0, 1)


class Normed(Reading):
    """Norms each head.

    Attributes:
        norm: the norm.
    """

    norm: NormOfHeads = RMSNorm()

    def build(self, width: int, heads: int, value_width: int) -> ReadingModule:
        """Returns the module."""
        return ReadingModule(self.norm.of_heads(heads, value_width))


class Gated(Reading):
    """Norms each head and multiplies it by a gate that the token chooses.

    Attributes:
        norm: the norm.
        act: the activation of the gate, a key of `groundup.parts.act.ACTIVATIONS`.
    """

    norm: NormOfHeads = RMSNorm()
    act: Act = "silu"

    def build(self, width: int, heads: int, value_width: int) -> ReadingModule:
        """Returns the module."""
        return GatedModule(self, width, heads, value_width)


class GatedModule(ReadingModule):
    """The module of `Gated`."""

    def __init__(self, spec: Gated, width: int, heads: int, value_width: int) -> None:
        super().__init__(spec.norm.of_heads(heads, value_width))
        self.gate = Linear(width, heads * value_width, bias=False, role="in")
        self.act = activation(spec.act)

    def forward(self, y: Float[Tensor, "B T H M"], x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T H L"]:
        """Returns the gated heads."""
        return self.norm(y) * self.act(self.gate(x)).view_as(y)
