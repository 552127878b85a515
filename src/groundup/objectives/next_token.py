"""Predict the next token: -sum_t log p(x_{t+1} | x_1 ... x_t), over the targets that count."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.context import NOT_COUNTED, Batch
from groundup.model.decoder import DecoderModel
from groundup.objectives.loss import Loss
from groundup.ops import cross_entropy


def next_token(model: DecoderModel, batch: Batch) -> Loss:
    """Returns the summed cross-entropy of a batch's targets."""
    hidden, targets = _counted(model, batch)
    head, cap = model.head, model.spec.head.cap
    total = cross_entropy.chunked(hidden, head.weight, targets, bias=head.bias, cap=cap)
    return Loss(total=total, tokens=targets.shape[0])


@torch.no_grad()
def token_losses(model: DecoderModel, batch: Batch) -> Float[Tensor, "N"]:
    """Returns the cross-entropy of each target that counts, in nats, in the order of the rows."""
    hidden, targets = _counted(model, batch)
    head, cap = model.head, model.spec.head.cap
    return cross_entropy.token_losses(hidden, head.weight, targets, bias=head.bias, cap=cap)


def _counted(model: DecoderModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """The hidden states (N, D) as the head reads them, and the targets (N,), that count."""
    hidden = model.for_head(model.hidden(batch.ids, segments=batch.segments, positions=batch.positions))
    counted = batch.targets != NOT_COUNTED
    if counted.all():
        return hidden.flatten(0, 1), batch.targets.flatten()
    return hidden[counted], batch.targets[counted]
