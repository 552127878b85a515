"""Fill in what is hidden: -sum_{t in M} log p(x_t | the text with M hidden), for a bidirectional model.

Of the tokens that are no special ones, a share is chosen: as many of each row, at least one. Of these, 80 % are
replaced by the mask, 10 % by any ordinary token, and 10 % stay, because no mask stands in the texts that the model
will read later. Special tokens and padding are neither chosen nor put in the place of others.

Source: Devlin et al. 2019 (BERT, arXiv:1810.04805), section 3.1; whole words: their code's release of May 2019.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.context import NOT_COUNTED, Batch
from groundup.errors import SpecError
from groundup.model.encoder import Encoder
from groundup.model.model import Model
from groundup.objectives.objective import MASK, Batches, Draws, Ids, Objective, Reading, Shape
from groundup.specs import Share, Spec
from groundup.text.tokenizer import Tokenizer


class Unit(Spec, abstract=True):
    """Which tokens are hidden together."""

    def inside(self, tokenizer: Tokenizer) -> NDArray[np.bool_]:
        """Returns, for each id, whether it goes on with the unit of the token before it, (V,)."""
        raise NotImplementedError(type(self).__name__)


class EachToken(Unit):
    """Every token alone."""

    def inside(self, tokenizer: Tokenizer) -> NDArray[np.bool_]:
        """Returns that none does."""
        return np.zeros(tokenizer.vocab, dtype=bool)


class WholeWords(Unit):
    """All tokens of a word: those that go on with it begin with ``##`` or, where no token does, with a letter."""

    def inside(self, tokenizer: Tokenizer) -> NDArray[np.bool_]:
        """Returns whether each token goes on with a word."""
        names = [tokenizer.name_of(id) for id in range(tokenizer.vocab)]
        if any(name.startswith("##") for name in names):
            return np.array([name.startswith("##") for name in names])
        return np.array([name[:1].isalnum() and name[0] not in STARTS for name in names])


STARTS = "ĠĊĉč▁"  # how tokens write the space, line end or tab before a word: letters, to Python


class Masked(Objective):
    """Fills in tokens that were hidden.

    Attributes:
        rate: the share of tokens that is chosen.
        hidden: the share of these that is replaced by the mask.
        random: the share of these that is replaced by any token; the others stay.
        unit: which tokens are chosen together.
    """

    rate: Share = 0.15
    hidden: Share = 0.8
    random: Share = 0.1
    unit: Unit = EachToken()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rate:
            raise SpecError("rate=0 hides nothing, so nothing is learnt; choose a share above 0, such as 0.15")
        if self.hidden + self.random > 1:
            raise SpecError(
                f"hidden={self.hidden} and random={self.random} are more than 1 together; lower one of them"
            )

    @property
    def special(self) -> tuple[str, ...]:
        """The mask."""
        return (MASK,)

    def misfit(self, model: Model) -> str | None:
        """Returns why a model cannot learn it: only an encoder can."""
        return filling_misfit(model)

    def shape(self, model: Model, context: int) -> Shape:
        """Returns the shape of its batches."""
        return Shape(text=context, ids=context, predicted=self._count(context))

    def _count(self, tokens: int) -> int:
        """How many of so many tokens are chosen."""
        return min(tokens, max(1, round(self.rate * tokens)))

    def batches(self, text: Batches, reading: Reading) -> Batches:
        """Returns a text's batches with tokens hidden; targets are the hidden ones."""
        mask, ordinary, special = reading.special(MASK, self), reading.ordinary(), reading.is_special()
        inside = self.unit.inside(reading.tokenizer)

        def make(read: Batch, draws: Draws) -> Batch:
            ids, real = read.ids.numpy(), (read.targets != NOT_COUNTED).numpy()
            shown, targets = ids.copy(), np.full_like(ids, NOT_COUNTED)
            for row, draw in enumerate(draws):
                free = real[row] & ~special[ids[row]]
                places = _chosen(free, inside[ids[row]], count=self._count(int(free.sum())), draw=draw)
                targets[row, places] = ids[row, places]
                lot = draw.random(len(places))
                shown[row, places[lot < self.hidden]] = mask
                strange = places[(lot >= self.hidden) & (lot < self.hidden + self.random)]
                shown[row, strange] = ordinary[draw.integers(len(ordinary), size=len(strange))]
            return dataclasses.replace(
                read,
                ids=torch.from_numpy(shown),
                targets=torch.from_numpy(targets),
                read=torch.from_numpy(real.sum(1)),
            )

        return reading.drawn(text, make)


def filling_misfit(model: Model) -> str | None:
    """Returns why a model cannot fill in tokens, as what follows "the model, which"; None where it can."""
    return None if isinstance(model, Encoder) else "does not see both sides of a token"


def _chosen(free: NDArray[np.bool_], inside: NDArray[np.bool_], *, count: int, draw: np.random.Generator) -> Ids:
    """The places of about ``count`` of the free tokens: whole units in random order, without one that is too much."""
    goes_on = inside[1:] & free[1:] & free[:-1]
    unit = np.concatenate([[0], np.cumsum(~goes_on)])
    sizes = np.bincount(unit[free], minlength=unit[-1] + 1)
    taken = np.zeros(len(sizes), dtype=bool)
    for one in draw.permutation(np.flatnonzero(sizes)):
        if not count:
            break
        if sizes[one] <= count:
            taken[one] = True
            count -= sizes[one]
    return np.flatnonzero(free & taken[unit])
