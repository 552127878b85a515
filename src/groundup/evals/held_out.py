"""How well a model does what it learns, on text that it has not seen, where that is not all of the text once.

What the objective draws, such as which tokens are hidden, is drawn by a seed of its own, so that models and moments of
a run can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from groundup.context import Batch
from groundup.devices import autocast
from groundup.errors import DataError
from groundup.evals.perplexity import Score
from groundup.model.model import ModelModule
from groundup.objectives.objective import Objective


@torch.no_grad()
def objective_score(
    model: ModelModule,
    objective: Objective,
    batches: Iterable[Batch],
    *,
    dtype: torch.dtype = torch.float32,
    total: int | None = None,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> Score:
    """Returns an objective's loss over batches.

    Args:
        model: it is put into evaluation mode.
        objective: what it learns.
        batches: of text that was held out.
        dtype: of the matrix products.
        total: how many batches there are; None where nobody knows.
        progress: hears how many of how many batches are read.

    Raises:
        DataError: nothing of the text counts.
    """
    model.eval()
    device = next(model.parameters()).device
    nats, tokens = 0.0, 0
    for number, batch in enumerate(batches, 1):
        with autocast(device, dtype):
            loss = objective.loss(model, batch.to(device))
        nats += loss.total.item()
        tokens += loss.tokens
        progress(number, total)
    if not tokens:
        raise DataError("there is no text to evaluate on; give documents that are not empty")
    return Score(nats=nats, tokens=tokens)
