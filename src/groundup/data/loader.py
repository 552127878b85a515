"""Batches from a corpus, each a pure function of (seed, step): any batch can be had without those before it.

The documents of a split stand one after another, N tokens in all, cut into windows of T. An epoch reads each window
once, in an order of its own (see `shuffle`); window g of the whole run is number g modulo the windows of an epoch,
in epoch g // windows, and step s reads windows s * rows to (s + 1) * rows. So every token is read once an epoch, a
batch may lie across the border of two epochs, and nothing is dropped. The last window is filled up with tokens that
do not count.

An end token has two meanings: what the document before it has to predict, and what the document after it begins with.
So a packed document's segment starts at the end token before it, every token of the text has something to predict,
and a model learns how documents begin.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundup.context import NOT_COUNTED, Batch
from groundup.data.corpus import Corpus
from groundup.data.shuffle import shuffled
from groundup.errors import DataError

Packing = Literal["apart", "together"]
Order = Literal["random", "file"]


class Loader:
    """Reads batches of token windows from one split of a corpus.

    Attributes:
        tokens_per_batch: tokens that one step reads, on all ranks together.
        rows_per_epoch: windows in an epoch.
        steps_per_epoch: steps until every window was read once; the last may read some of the next epoch.
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        split: str = "train",
        rows: int,
        context: int,
        seed: int = 0,
        packing: Packing = "apart",
        order_by: Order = "random",
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Opens a split.

        Args:
            corpus: where the tokens are.
            split: which side of it.
            rows: windows in a batch, on all ranks together.
            context: tokens in a window.
            seed: draws the order of each epoch.
            packing: ``apart`` gives each document of a window its own segment and positions from 0, so that no token
                sees another document's; ``together`` reads documents on as one text.
            order_by: ``random``, or ``file`` for the order in which the tokens lie.
            rank: which of ``world`` equal parts of each batch to read.
            world: how many processes share a batch.

        Raises:
            DataError: the split is shorter than a window, the rows cannot be shared out, or there is no corpus.
        """
        if not isinstance(corpus, Corpus):
            raise DataError(f"{corpus!r} is no corpus; give one that is open, as in Corpus.open(folder)")
        if rows < 1 or context < 1:
            raise DataError(f"rows={rows} and context={context} make no batch; choose 1 or more of each")
        if not 0 <= rank < world or rows % world:
            raise DataError(
                f"rank={rank} of world={world} cannot share rows={rows}; choose rows as a multiple of world"
            )
        for name, value, choices in (("packing", packing, Packing), ("order_by", order_by, Order)):
            if value not in get_args(choices):
                raise DataError(f"{name}={value!r} is unknown; choose from {', '.join(get_args(choices))}")
        self._split = corpus.split(split)
        if self._split.tokens < context:
            raise DataError(
                f"{split} of {corpus.folder} has {self._split.tokens} tokens, fewer than one row of context={context}; "
                "choose a shorter context or give more text"
            )
        self._rows, self._context, self._seed = rows, context, seed
        self._packing, self._order_by = packing, order_by
        self._first, self._count = rank * (rows // world), rows // world
        self.tokens_per_batch = rows * context
        self.rows_per_epoch = -(-self._split.tokens // context)
        self.steps_per_epoch = -(-self.rows_per_epoch // rows)

    def batch(self, step: int) -> Batch:
        """Returns the batch of a step, this rank's rows of it: (B, T) with B = rows / world and T = context.

        Raises:
            DataError: the step is negative.
        """
        if step < 0:
            raise DataError(f"step={step} is before the first batch; expected 0 or more")
        starts = self._windows(step) * self._context
        ids = np.zeros((self._count, self._context + 1), dtype=np.int64)
        counted = np.zeros((self._count, self._context), dtype=bool)
        for row, start in enumerate(starts.tolist()):
            tokens = self._split.ids(start, start + self._context + 1)
            ids[row, : len(tokens)] = tokens
            counted[row, : len(tokens) - 1] = True
        segments, positions = self._places(starts) if self._packing == "apart" else (None, None)
        return Batch(
            ids=torch.from_numpy(ids[:, :-1].copy()),
            targets=torch.from_numpy(np.where(counted, ids[:, 1:], NOT_COUNTED)),
            segments=segments,
            positions=positions,
        )

    def _windows(self, step: int) -> NDArray[np.int64]:
        """The numbers of the windows in this rank's rows, (B,)."""
        running = step * self._rows + self._first + np.arange(self._count)
        epochs, places = np.divmod(running, self.rows_per_epoch)
        if self._order_by == "file":
            return places
        numbers = np.empty_like(places)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            numbers[here] = shuffled(places[here], size=self.rows_per_epoch, key=(self._seed, int(epoch)))
        return numbers

    def _places(self, starts: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Segments and positions of the T tokens of each window, (B, T) each.

        What fills up the last window lies behind the last document, so it is a segment of its own.
        """
        places = starts[:, None] + np.arange(self._context)
        begins = self._split.starts - 1  # at the end token before the document
        document = np.searchsorted(begins, places.ravel(), side="right").reshape(places.shape) - 1
        positions = places - np.maximum(begins[document], starts[:, None])
        return torch.from_numpy(document - document[:, :1]), torch.from_numpy(positions)
