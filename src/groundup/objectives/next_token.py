"""Predict the next token: -sum_t log p(x_{t+1} | x_1 ... x_t), over the targets that count."""

from __future__ import annotations

from groundup.context import Batch
from groundup.model.decoder import Decoder
from groundup.model.model import Model, ModelModule
from groundup.objectives import loss
from groundup.objectives.loss import Loss
from groundup.objectives.objective import Batches, Objective, Reading, Shape


class NextToken(Objective):
    """Predicts each token from those before it in its document."""

    @property
    def whole(self) -> bool:
        """True: every token of the text is predicted once."""
        return True

    def misfit(self, model: Model) -> str | None:
        """Returns why a model cannot learn it: only a decoder can."""
        return None if isinstance(model, Decoder) else "reads what comes after a token, which would give it away"

    def shape(self, model: Model, context: int) -> Shape:
        """Returns the shape of its batches: text as it is."""
        return Shape(text=context, ids=context, predicted=context)

    def batches(self, text: Batches, reading: Reading) -> Batches:
        """Returns the text as it is."""
        return text


def next_token(model: ModelModule, batch: Batch) -> Loss:
    """Returns the summed cross-entropy of a batch's targets and, for each, the parts' penalties, which are metrics."""
    return loss.of_targets(model, batch)
