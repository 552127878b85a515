"""What a token writes to the state of linear attention.

    Add:    S <- a S + k v^T
    Delta:  S <- a S + k (b (v - k a S))^T,   b = most * sigmoid(w x)

Sources: `groundup.ops.linear_attention` and `groundup.ops.delta_rule`.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from groundup.errors import SpecError
from groundup.ops import delta_rule, linear_attention
from groundup.parts.linear import Linear
from groundup.specs import Spec

Keys = Float[Tensor, "B H T K"]
Values = Float[Tensor, "B H T L"]
Memory = Float[Tensor, "B H K L"]


class Update(Spec, abstract=True):
    """What a token writes."""

    @property
    def needs_unit_length(self) -> bool:
        """Whether the state grows without end where keys are longer than 1."""
        return False

    def build(self, width: int, heads: int) -> UpdateModule:
        """Returns the module for a stream of ``width`` and so many heads."""
        raise NotImplementedError(type(self).__name__)


class UpdateModule(nn.Module):
    """Writes to a state and reads from it; this one adds the value under the key."""

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        q: Keys,
        k: Keys,
        v: Values,
        *,
        decay: Float[Tensor, "#B #H #T #K"] | None,
        state: Memory | None,
        starts: Bool[Tensor, "B T"] | None,
    ) -> tuple[Values, Memory]:
        """Returns what queries read, and the state; ``x`` is the stream, for the rest see the operations."""
        return linear_attention.chunked(q, k, v, decay=decay, state=state, starts=starts)

    def flops(self, tokens: int, key_width: int, value_width: int, *, decays: int) -> int:
        """Returns the operations of matrix products for one head of one row."""
        return linear_attention.flops(tokens, key_width, value_width, decays=decays)

    def backward_flops(self, tokens: int, key_width: int, value_width: int, *, decays: int) -> int:
        """Returns the operations of their backward, of a text from its start."""
        return linear_attention.backward_flops(tokens, key_width, value_width, decays=decays)


class Add(Update):
    """Adds the value under the key."""

    def build(self, width: int, heads: int) -> UpdateModule:
        """Returns the module, which has no parameters."""
        return UpdateModule()


class Delta(Update):
    """Replaces a part of what is under the key by the value.

    Attributes:
        most: the largest part, below which the token chooses; 2 lets a key change the sign of what is under it
            (Grazzi et al. 2024, arXiv:2411.12537).
    """

    most: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.most <= 2:
            raise SpecError(f"Delta(most={self.most}) is not stable; choose a number above 0 and up to 2")

    @property
    def needs_unit_length(self) -> bool:
        """True: what is under a longer key is replaced by more than the difference, again and again."""
        return True

    def build(self, width: int, heads: int) -> UpdateModule:
        """Returns the module for a stream of ``width``."""
        return DeltaModule(self.most, width, heads)


class DeltaModule(UpdateModule):
    """The module of `Delta`."""

    def __init__(self, most: float, width: int, heads: int) -> None:
        super().__init__()
        self.most = most
        self.part = Linear(width, heads, bias=False, role="in")

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        q: Keys,
        k: Keys,
        v: Values,
        *,
        decay: Float[Tensor, "#B #H #T #K"] | None,
        state: Memory | None,
        starts: Bool[Tensor, "B T"] | None,
    ) -> tuple[Values, Memory]:
        """Returns what queries read, and the state."""
        part = self.part(x)
        part = self.most * part.to(torch.promote_types(part.dtype, torch.float32)).sigmoid().mT  # (B, H, T)
        return delta_rule.chunked(q, k, v, part, decay=decay, state=state, starts=starts)

    def flops(self, tokens: int, key_width: int, value_width: int, *, decays: int) -> int:
        """Returns the operations of matrix products for one head of one row."""
        return delta_rule.flops(tokens, key_width, value_width, decays=decays)

    def backward_flops(self, tokens: int, key_width: int, value_width: int, *, decays: int) -> int:
        """Returns the operations of their backward, of a text from its start."""
        return delta_rule.backward_flops(tokens, key_width, value_width, decays=decays)
