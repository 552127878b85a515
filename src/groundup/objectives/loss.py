"""The cross-entropy of a batch's targets: what every objective's loss is made of, and what it returns.

    loss = -sum_n s_n log p(target_n | what the model read),   s the weights of the batch, 1 where it has none

To each token's loss comes what parts ask for themselves, as routers do for balance: with the weight that the spec
gives, the mean over the layers that ask. So transformers weighs it too; Fedus et al. 2021 (arXiv:2101.03961) add it up
over layers, which is a larger weight. Letters: N targets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.context import NOT_COUNTED, Batch, Penalties
from groundup.model.model import ModelModule
from groundup.ops import cross_entropy


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


LossFunction = Callable[[Any, Batch], Loss]  # of a model and a batch that it reads


class _Asked(NamedTuple):
    """What the head is asked for: its inputs, the right answers, and their weights; None means 1."""

    hidden: Float[Tensor, "N D"]
    targets: Int[Tensor, "N"]
    weights: Float[Tensor, "N"] | None


def of_targets(model: ModelModule, batch: Batch) -> Loss:
    """Returns the summed cross-entropy of a batch's targets and, for each, the parts' penalties, which are metrics."""
    penalties: Penalties = {}
    asked = _asked(model, batch, penalties)
    head, cap = model.predictor.head, model.predictor.spec.head.cap
    total = cross_entropy.chunked(
        asked.hidden, head.weight, asked.targets, bias=head.bias, cap=cap, scale=asked.weights
    )
    means = {name: torch.stack(values).mean() for name, values in penalties.items()}
    counted = batch.counted_tokens
    for mean in means.values():
        total = total + counted * mean
    return Loss(total=total, tokens=counted, metrics={name: mean.item() for name, mean in means.items()})


@torch.no_grad()
def token_losses(model: ModelModule, batch: Batch) -> Float[Tensor, "N"]:
    """Returns the cross-entropy of each target that counts, with its weight, in nats, in the order of the rows.

    Targets of weight 0 are left out.
    """
    hidden, targets, weights = _asked(model, batch)
    head, cap = model.predictor.head, model.predictor.spec.head.cap
    losses = cross_entropy.token_losses(hidden, head.weight, targets, bias=head.bias, cap=cap)
    return losses if weights is None else losses * weights


def _asked(model: ModelModule, batch: Batch, penalties: Penalties | None = None) -> _Asked:
    """The hidden states (N, D) as the head reads them, the targets (N,) that count, and their weights (N,)."""
    hidden, weights = model.read(batch, penalties=penalties), batch.weights
    counted = batch.targets != NOT_COUNTED
    if weights is not None:
        counted = counted & (weights > 0)
    if counted.all():
        hidden, targets = hidden.flatten(0, 1), batch.targets.flatten()
    else:
        hidden, targets = hidden[counted], batch.targets[counted]
    return _Asked(model.predictor.for_head(hidden), targets, None if weights is None else weights[counted])
