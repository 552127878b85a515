"""Masked diffusion: fill in whatever share of a text is hidden, from almost none to all of it.

    loss = E_t [ (1/t) sum_{n hidden} -log p(x_n | the text with each token hidden with probability t) ],   t ~ U(0, 1)

which bounds -log p(text) from above, so that a model which sees both sides learns to write texts: see
`groundup.infer.diffuse`. The end token of a text is hidden as all others; the loss is a mean over all tokens.

Sources: Sahoo et al. 2024 (MDLM, arXiv:2406.07524), equation 11 with a linear schedule; Nie et al. 2025 (LLaDA,
arXiv:2502.09992), equation 3.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from groundup.context import NOT_COUNTED, Batch
from groundup.model.model import Model
from groundup.objectives.masked import filling_misfit
from groundup.objectives.objective import MASK, Batches, Draws, Objective, Reading, Shape
from groundup.specs import Share


class MaskedDiffusion(Objective):
    """Fills in texts of which any share may be hidden.

    Attributes:
        least: the smallest share; smaller ones would weigh a single token too much.
    """

    least: Share = 0.001

    @property
    def special(self) -> tuple[str, ...]:
        """The mask."""
        return (MASK,)

    def misfit(self, model: Model) -> str | None:
        """Returns why a model cannot learn it: only an encoder can."""
        return filling_misfit(model)

    def shape(self, model: Model, context: int) -> Shape:
        """Returns the shape of its batches, of which half is hidden in the mean."""
        return Shape(text=context, ids=context, predicted=-(-context // 2))

    def batches(self, text: Batches, reading: Reading) -> Batches:
        """Returns a text's batches with tokens hidden; every token is a target, those that are shown of weight 0."""
        mask = reading.special(MASK, self)

        def make(read: Batch, draws: Draws) -> Batch:
            real = (read.targets != NOT_COUNTED).numpy()
            hidden, weights = np.zeros_like(real), np.zeros(real.shape, dtype=np.float32)
            for row, draw in enumerate(draws):
                share = max(draw.random(), self.least)
                hidden[row] = real[row] & (draw.random(real.shape[1]) < share)
                weights[row, hidden[row]] = 1 / share
            return dataclasses.replace(
                read,
                ids=read.ids.masked_fill(torch.from_numpy(hidden), mask),
                targets=read.ids.masked_fill(torch.from_numpy(~real), NOT_COUNTED),
                weights=torch.from_numpy(weights),
            )

        return reading.drawn(text, make)
