"""Objectives that make a source and a target of each row of text, for models that write after they have read.

    encoder-decoder   reads the source; writes the target after its start token
    decoder           reads source and target as one text; only the target counts, and the tokens of the source, its
                      prefix, see each other where the mask of its attention is a `Prefix`

How long both can be is known from the length of the text, so that rows of one context waste little. Documents are read
on as one text.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch

from groundup.context import NOT_COUNTED, Batch
from groundup.errors import ConfigError
from groundup.model.encoder_decoder import EncoderDecoder
from groundup.model.model import Model
from groundup.objectives.objective import Batches, Draws, Ids, Objective, Reading, Shape


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """How long what is made of a text is, in tokens.

    Attributes:
        source: at most.
        target: at most.
        both: of source and target together, at most.
        predicted: of the target, in the mean.
    """

    source: int
    target: int
    both: int
    predicted: int


Rewrite = Callable[[Ids, np.random.Generator], tuple[Ids, Ids]]  # of a text, at least two tokens: source and target


class Rewriting(Objective, abstract=True):
    """Makes a source and a target of each row of text."""

    @property
    def packing(self) -> Literal["apart", "together"]:
        """Documents are read on as one text."""
        return "together"

    def lengths(self, text: int) -> Lengths:
        """Returns how long what is made of so many tokens of text is; longer texts give nothing shorter."""
        raise NotImplementedError(type(self).__name__)

    def rewrite(self, reading: Reading, *, text: int) -> Rewrite:
        """Returns what makes a source and a target of at most so many tokens of text."""
        raise NotImplementedError(type(self).__name__)

    def shape(self, model: Model, context: int) -> Shape:
        """Returns the shape of its batches: the longest text whose source, or all of it in a decoder, fits.

        Raises:
            ConfigError: not even a text of two tokens does.
        """
        return _shape(self, model, context)

    def batches(self, text: Batches, reading: Reading) -> Batches:
        """Returns a text's batches of sources and targets."""
        shape = self.shape(reading.model, reading.context)
        rewrite = self.rewrite(reading, text=shape.text)

        def make(read: Batch, draws: Draws) -> Batch:
            real = (read.targets != NOT_COUNTED).sum(1).tolist()
            rows = [ids[:count] for ids, count in zip(read.ids.numpy(), real, strict=True)]
            nothing = np.empty(0, dtype=np.int64)
            made = [
                rewrite(row, draw) if len(row) > 1 else (row, nothing) for row, draw in zip(rows, draws, strict=True)
            ]
            return arranged(made, model=reading.model, shape=shape, read=real)

        return reading.drawn(text, make)


def arranged(
    pairs: Sequence[tuple[Ids, Ids]], *, model: Model, shape: Shape, read: Sequence[int] | None = None
) -> Batch:
    """Returns a batch of sources and targets, laid out for a model and padded.

    Args:
        pairs: a source and a target for each row.
        model: an encoder-decoder or a decoder.
        shape: to which lengths they are padded.
        read: how many tokens of text each row stands for; None means its targets.
    """
    size = (len(pairs), shape.ids)
    ids, targets = torch.zeros(size, dtype=torch.int64), torch.full(size, NOT_COUNTED)
    known = None if read is None else torch.tensor(read)
    if isinstance(model, EncoderDecoder):
        source = torch.zeros(len(pairs), shape.source, dtype=torch.int64)
        for row, (given, wanted) in enumerate(pairs):
            source[row, : len(given)] = torch.from_numpy(given)
            ids[row, 0] = model.start
            ids[row, 1 : len(wanted)] = torch.from_numpy(wanted[:-1])
            targets[row, : len(wanted)] = torch.from_numpy(wanted)
        lengths = torch.tensor([max(len(given), 1) for given, _ in pairs])  # attention over nothing is not defined
        return Batch(ids=ids, targets=targets, source=source, source_lengths=lengths, read=known)
    for row, (given, wanted) in enumerate(pairs):
        whole = torch.from_numpy(np.concatenate([given, wanted]))
        if not len(whole):
            continue
        ids[row, : len(whole) - 1] = whole[:-1]
        targets[row, len(given) - 1 : len(whole) - 1] = whole[len(given) :]
    return Batch(ids=ids, targets=targets, prefix=torch.tensor([len(given) for given, _ in pairs]), read=known)


@lru_cache(maxsize=64)
def _shape(objective: Rewriting, model: Model, context: int) -> Shape:
    pair = isinstance(model, EncoderDecoder)

    def too_long(text: int) -> bool:
        made = objective.lengths(text)
        if isinstance(model, EncoderDecoder):
            return made.source > context or made.target > model.decoder.context
        return made.both - 1 > context

    text = 1 + bisect(range(2, 8 * context), 0, key=too_long)
    if text < 2:
        name = type(objective).__name__
        raise ConfigError(f"context={context} has no room for what objective={name} makes of two tokens; raise it")
    made = objective.lengths(text)
    ids = made.target if pair else made.both - 1
    return Shape(text=text, ids=ids, predicted=made.predicted, source=made.source if pair else 0)
