"""What every objective returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from groundup.context import Batch
from groundup.model.decoder import DecoderModel


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A loss that adds up over batches.

    Attributes:
        total: the sum of the losses of all tokens that count, in nats; gradients flow through it.
        tokens: how many tokens count.
        metrics: further figures to show, by name.
    """

    total: Tensor
    tokens: int
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def mean(self) -> Tensor:
        """The loss per token that counts, in nats."""
        return self.total / max(self.tokens, 1)


Objective = Callable[[DecoderModel, Batch], Loss]
