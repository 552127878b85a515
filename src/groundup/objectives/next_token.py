"""Predict the next token: -sum_t log p(x_{t+1} | x_1 ... x_t), over the targets that count.

To each token's loss comes what parts ask for themselves, as routers do for balance: with the weight that the spec
gives, the mean over the layers that ask. So transformers weighs it too; Fedus et al. 2021 (arXiv:2101.03961) add it up
over layers, which is a larger weight.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.context import NOT_COUNTED, Batch, Penalties
from groundup.model.decoder import DecoderModel
from groundup.objectives.loss import Loss
from groundup.ops import cross_entropy


def next_token(model: DecoderModel, batch: Batch) -> Loss:
    """Returns the summed cross-entropy of a batch's targets and, for each, the parts' penalties, which are metrics."""
    penalties: Penalties = {}
    hidden, targets = _counted(model, batch, penalties)
    head, cap = model.head, model.spec.head.cap
    total = cross_entropy.chunked(hidden, head.weight, targets, bias=head.bias, cap=cap)
    means = {name: torch.stack(values).mean() for name, values in penalties.items()}
    for mean in means.values():
        total = total + targets.shape[0] * mean
    metrics = {name: mean.item() for name, mean in means.items()}
    return Loss(total=total, tokens=targets.shape[0], metrics=metrics)


@torch.no_grad()
def token_losses(model: DecoderModel, batch: Batch) -> Float[Tensor, "N"]:
    """Returns the cross-entropy of each target that counts, in nats, in the order of the rows."""
    hidden, targets = _counted(model, batch)
    head, cap = model.head, model.spec.head.cap
    return cross_entropy.token_losses(hidden, head.weight, targets, bias=head.bias, cap=cap)


def _counted(model: DecoderModel, batch: Batch, penalties: Penalties | None = None) -> tuple[Tensor, Tensor]:
    """The hidden states (N, D) as the head reads them, and the targets (N,), that count."""
    packing = {"segments": batch.segments, "positions": batch.positions}
    hidden = model.for_head(model.hidden(batch.ids, penalties=penalties, **packing))
    counted = batch.targets != NOT_COUNTED
    if counted.all():
        return hidden.flatten(0, 1), batch.targets.flatten()
    return hidden[counted], batch.targets[counted]
