"""How well a decoder's state and a token of the memory fit, before recurrent networks gave way to Transformers.

    Dot:       s . m
    General:   s . W m
    Additive:  v . tanh(W s + U m)

Sources: Bahdanau et al. 2015 (arXiv:1409.0473), appendix A.1.2 (additive); Luong et al. 2015 (arXiv:1508.04025),
equation 8, where additive is called concat. Letters: M tokens of the memory, A width of the keys.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.errors import SpecError
from groundup.parts.linear import Linear
from groundup.specs import Size, Spec


class Align(Spec, abstract=True):
    """How well a query and a token of the memory fit."""

    def build(self, width: int, memory_width: int) -> Alignment:
        """Returns the module for queries of ``width`` and a memory of ``memory_width``."""
        raise NotImplementedError(type(self).__name__)


class Alignment(nn.Module):
    """The module of an `Align`; this base class is that of products without weights.

    Attributes:
        width: of the keys that are made of the memory.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def keys(self, memory: Float[Tensor, "B M D"]) -> Float[Tensor, "B M A"]:
        """Returns what is needed of the memory, once for all queries."""
        return memory

    def memory_maps(self) -> Sequence[nn.Module]:
        """Returns the linear maps that run on the memory."""
        return ()

    def forward(self, query: Float[Tensor, "B T Q"], keys: Float[Tensor, "B M A"]) -> Float[Tensor, "B T M"]:
        """Returns how well each query and each key fit."""
        return query @ keys.mT

    def mix_flops(self, tokens: int, seen: int) -> int:
        """Returns the operations for so many queries and tokens of the memory, besides the linear maps."""
        return 2 * tokens * seen * self.width


class Dot(Align):
    """Their product."""

    def build(self, width: int, memory_width: int) -> Alignment:
        """Returns the module."""
        if width != memory_width:
            raise SpecError(f"vectors of {width} and {memory_width} have no product; choose General or Additive")
        return Alignment(width)


class General(Align):
    """The product of the query and a linear map of the token."""

    def build(self, width: int, memory_width: int) -> GeneralAlignment:
        """Returns the module."""
        return GeneralAlignment(width, memory_width)


class GeneralAlignment(Alignment):
    """The module of `General`."""

    def __init__(self, width: int, memory_width: int) -> None:
        super().__init__(width)
        self.key = Linear(memory_width, width, bias=False, role="in")

    def keys(self, memory: Float[Tensor, "B M D"]) -> Float[Tensor, "B M A"]:
        """Returns the linear maps of the memory's tokens."""
        return self.key(memory)

    def memory_maps(self) -> Sequence[nn.Module]:
        """Returns the map of the keys."""
        return (self.key,)


class Additive(Align):
    """A network of one layer over both.

    Attributes:
        hidden: its width.
    """

    hidden: Size

    def build(self, width: int, memory_width: int) -> AdditiveAlignment:
        """Returns the module."""
        return AdditiveAlignment(self, width, memory_width)


class AdditiveAlignment(Alignment):
    """The module of `Additive`."""

    def __init__(self, spec: Additive, width: int, memory_width: int) -> None:
        super().__init__(spec.hidden)
        self.query = Linear(width, spec.hidden, bias=False, role="in")
        self.key = Linear(memory_width, spec.hidden, bias=False, role="in")
        self.score = nn.Parameter(torch.full((spec.hidden,), spec.hidden**-0.5))

    def keys(self, memory: Float[Tensor, "B M D"]) -> Float[Tensor, "B M A"]:
        """Returns the linear maps of the memory's tokens."""
        return self.key(memory)

    def memory_maps(self) -> Sequence[nn.Module]:
        """Returns the map of the keys."""
        return (self.key,)

    def forward(self, query: Float[Tensor, "B T Q"], keys: Float[Tensor, "B M A"]) -> Float[Tensor, "B T M"]:
        """Returns how well each query and each key fit."""
        inside = torch.tanh(self.query(query)[:, :, None] + keys[:, None])  # (B, T, M, A)
        return (inside @ self.score.to(inside.dtype)[:, None])[..., 0]


def read(
    scores: Float[Tensor, "B T M"], memory: Float[Tensor, "B M D"], lengths: Int[Tensor, "B"] | None
) -> Float[Tensor, "B T D"]:
    """Returns the mean of the memory's real tokens, weighed by the softmax of their scores."""
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if lengths is not None:
        place = torch.arange(memory.shape[1], device=memory.device)
        scores = scores.masked_fill((place >= lengths[:, None])[:, None], -torch.inf)
    return scores.softmax(-1).to(memory.dtype) @ memory
