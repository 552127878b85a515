"""What a run learns, as a spec: which models can learn it, how text becomes its batches, and the loss of a batch.

Batches are functions of their number: whatever is drawn for row r of step s comes from a generator of (seed, s, r), so
that any batch can be had without those before it, and a resumed run sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from groundup.context import Batch
from groundup.errors import ConfigError, TextError
from groundup.model.decoder import Decoder
from groundup.model.encoder_decoder import EncoderDecoder
from groundup.model.heads import NoHead
from groundup.model.model import Model, ModelModule
from groundup.objectives import loss
from groundup.objectives.loss import Loss
from groundup.specs import Spec
from groundup.text.tokenizer import Tokenizer

Batches = Callable[[int], Batch]
Draws = Sequence[np.random.Generator]  # one for each row
Ids = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How long the rows of an objective's batches are, in tokens.

    Attributes:
        text: of text that a row is made of.
        ids: that the stack with the head reads.
        predicted: targets, those that are drawn in the mean.
        source: that the encoder of an encoder-decoder reads; 0 without one.
    """

    text: int
    ids: int
    predicted: int
    source: int = 0

    @classmethod
    def even(cls, context: int) -> Shape:
        """Returns the shape in which each token has a target, and each target a source as long where there is one."""
        return cls(text=context, ids=context, predicted=context, source=context)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What batches are made with.

    Attributes:
        model: what they are for.
        tokenizer: made the ids.
        context: tokens of a row, as `Objective.shape` takes it.
        seed: of all that is drawn.
    """

    model: Model
    tokenizer: Tokenizer
    context: int
    seed: int

    def special(self, name: str, objective: Objective) -> int:
        """Returns the id of a special token that an objective needs.

        Raises:
            TextError: the tokenizer has none of this name.
        """
        found = self.tokenizer.mask if name == MASK else self.tokenizer.special.get(name)
        if found is None:
            raise TextError(
                f"the tokenizer has no special token {name}, which objective={type(objective).__name__} needs; leave "
                "data.tokenizer out to have one trained that has it, or train one with: groundup tokenizer train "
                f"SOURCE --special '{name}' --out FOLDER"
            )
        return found

    @property
    def end(self) -> int:
        """The id of the token that ends a text.

        Raises:
            TextError: the tokenizer has none.
        """
        if self.tokenizer.end is None:
            raise TextError("the tokenizer has no token that ends a text; set tokenizer.end to the id of one")
        return self.tokenizer.end

    def ordinary(self) -> Ids:
        """Returns the ids of all tokens that are not special."""
        special = set(self.tokenizer.special.values())
        return np.array([id for id in range(self.tokenizer.vocab) if id not in special], dtype=np.int64)

    def is_special(self) -> NDArray[np.bool_]:
        """Returns whether each id of the model's vocabulary is special, (V,)."""
        known = np.zeros(self.model.predictor.vocab, dtype=bool)
        known[[id for id in self.tokenizer.special.values() if id < len(known)]] = True
        return known

    def drawn(self, text: Batches, make: Callable[[Batch, Draws], Batch]) -> Batches:
        """Returns the batches that ``make`` makes of those of a text, with a generator for each row."""

        def batch(step: int) -> Batch:
            read = text(step)
            return make(read, [np.random.default_rng((self.seed, step, row)) for row in range(len(read.ids))])

        return batch


MASK = "[MASK]"  # or whatever the tokenizer calls it, see `Tokenizer.mask`


class Objective(Spec, abstract=True):
    """What a run learns."""

    @property
    def special(self) -> tuple[str, ...]:
        """The special tokens, besides the one that ends a text, that its batches need."""
        return ()

    @property
    def whole(self) -> bool:
        """Whether every token of the text is predicted once, so that its loss tells the bits of each byte."""
        return False

    @property
    def pairs(self) -> bool:
        """Whether it reads pairs of texts, a source and its target each."""
        return False

    @property
    def packing(self) -> Literal["apart", "together"]:
        """Whether the documents of a row are told apart, or read on as one text."""
        return "apart"

    def misfit(self, model: Model) -> str | None:
        """Returns why a model cannot learn it, as what follows "the model, which"; None where it can.

        Most make a model write, which an encoder alone cannot.
        """
        return None if isinstance(model, EncoderDecoder | Decoder) else "reads and does not write"

    def check(self, model: Model) -> None:
        """Makes sure that a model can learn it.

        Raises:
            ConfigError: it cannot.
        """
        headless = isinstance(model.predictor.head, NoHead)
        reason = self.misfit(model) or ("has no head that predicts tokens" if headless else None)
        if reason:
            name, mend = type(self).__name__, "choose another objective or model (docs/objectives.md)"
            raise ConfigError(f"objective={name} cannot train the model, which {reason}; {mend}")

    def shape(self, model: Model, context: int) -> Shape:
        """Returns the shape of its batches for a model, with rows of ``context`` tokens."""
        raise NotImplementedError(type(self).__name__)

    def batches(self, text: Batches, reading: Reading) -> Batches:
        """Returns its batches of a text.

        Args:
            text: rows of as many tokens of text as `shape` says.
            reading: what they are made with.

        Raises:
            TextError: the tokenizer lacks a special token.
        """
        raise NotImplementedError(type(self).__name__)

    def loss(self, model: ModelModule, batch: Batch) -> Loss:
        """Returns the loss of a batch."""
        return loss.of_targets(model, batch)


class Usual(Objective):
    """That which is usual for the kind of the model; `groundup.objectives.usual.usual` tells which."""
