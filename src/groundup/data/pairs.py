"""Batches of pairs from a corpus, each a pure function of (seed, step): any batch can be had without those before it.

The documents of such a corpus come in twos, a source and its target, each with its end token. An epoch reads each pair
once, in an order of its own (see `shuffle`). So that little is padded, the batches come in groups: the pairs of a group
are sorted by their lengths, cut into batches, and these are read in random order.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from groundup.context import NOT_COUNTED, Batch
from groundup.data.corpus import Corpus
from groundup.data.loader import Order
from groundup.data.shuffle import shuffled
from groundup.errors import DataError

GROUP = 32  # batches whose pairs are sorted together


class Pairs:
    """Reads batches of pairs from one split of a corpus.

    Attributes:
        rows_per_epoch: pairs in an epoch.
        steps_per_epoch: steps until every pair was read once; the last may read some of the next epoch.
        tokens_per_batch: of a batch, in the mean.
    """

    def __init__(
        self, corpus: Corpus, *, split: str = "train", rows: int, seed: int = 0, order_by: Order = "random"
    ) -> None:
        """Opens a split.

        Args:
            corpus: where the pairs are.
            split: which side of it.
            rows: pairs in a batch.
            seed: draws the order of each epoch.
            order_by: ``random``, or ``file`` for the order in which the pairs lie.

        Raises:
            DataError: the corpus holds texts and no pairs, or the split none.
        """
        if not corpus.pairs:
            raise DataError(f"{corpus.folder} holds texts and no pairs; build it with the names of both fields")
        self._split, self._rows, self._seed, self._order_by = corpus.split(split), rows, seed, order_by
        self.rows_per_epoch = self._split.documents_count // 2
        if not self.rows_per_epoch:
            raise DataError(f"{split} of {corpus.folder} has no pair; give more of them")
        self.steps_per_epoch = -(-self.rows_per_epoch // rows)
        self.tokens_per_batch = -(-self._split.tokens * rows // self.rows_per_epoch)

    def batch(self, step: int) -> Batch:
        """Returns the pairs of a step: sources, and targets both as ids and as targets, padded to the longest.

        Raises:
            DataError: the step is negative.
        """
        if step < 0:
            raise DataError(f"step={step} is before the first batch; expected 0 or more")
        pairs = self._pairs(step).tolist()
        source, lengths = _padded([self._document(2 * pair) for pair in pairs], filler=0)
        targets, _ = _padded([self._document(2 * pair + 1) for pair in pairs], filler=NOT_COUNTED)
        return Batch(ids=targets.clamp(min=0), targets=targets, source=source, source_lengths=lengths)

    def _document(self, number: int) -> NDArray[np.integer]:
        start, stop = self._split.starts[number : number + 2].tolist()
        return self._split.ids(start, stop)

    def _pairs(self, step: int) -> NDArray[np.int64]:
        """The numbers of the pairs of a step, (B,)."""
        if self._order_by == "file":
            return (step * self._rows + np.arange(self._rows)) % self.rows_per_epoch
        group, place = divmod(step, GROUP)
        epochs, places = np.divmod(group * GROUP * self._rows + np.arange(GROUP * self._rows), self.rows_per_epoch)
        numbers = np.empty_like(places)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            numbers[here] = shuffled(places[here], size=self.rows_per_epoch, key=(self._seed, int(epoch)))
        starts = self._split.starts
        sizes = starts[2 * numbers + 2] - starts[2 * numbers]
        batch = np.random.default_rng((self._seed, group)).permutation(GROUP)[place]
        return numbers[np.argsort(sizes, kind="stable")].reshape(GROUP, self._rows)[batch]


def _padded(rows: list[NDArray[np.integer]], *, filler: int) -> tuple[Tensor, Tensor]:
    lengths = [len(row) for row in rows]
    made = torch.full((len(rows), max(lengths)), filler, dtype=torch.int64)
    for i, row in enumerate(rows):
        made[i, : len(row)] = torch.from_numpy(row.astype(np.int64))
    return made, torch.tensor(lengths)
