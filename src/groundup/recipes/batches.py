"""What a run reads of its corpus, as its objective's batches."""

from __future__ import annotations

from groundup.data.corpus import Corpus
from groundup.data.loader import Loader, Order
from groundup.data.pairs import Pairs
from groundup.devices import autocast_dtype
from groundup.evals.held_out import objective_score
from groundup.evals.perplexity import Score
from groundup.model.model import ModelModule
from groundup.objectives.objective import Batches, Reading
from groundup.recipes.settings import Run
from groundup.recipes.watch import Watch

HELD_OUT_SEED = 0  # of what objectives draw where they are scored: the same for every run and moment


class Text:
    """One split of a run's corpus.

    Attributes:
        run: the settings.
        loader: reads the split.
    """

    def __init__(self, run: Run, corpus: Corpus, *, split: str = "train", order_by: Order = "random") -> None:
        self.run = run
        if run.objective.pairs:
            self.loader = Pairs(corpus, split=split, rows=run.rows, seed=run.seed, order_by=order_by)
        else:
            self.loader = Loader(
                corpus,
                split=split,
                rows=run.rows,
                context=min(run.shape.text, corpus.split(split).tokens),
                seed=run.seed,
                packing=run.objective.packing,
                order_by=order_by,
            )
        self._tokenizer = corpus.tokenizer

    def batches(self, *, seed: int) -> Batches:
        """Returns the batches by their number.

        Args:
            seed: of what the objective draws; the order of the text is the run's own.

        Raises:
            TextError: the tokenizer lacks a special token that the objective needs.
        """
        run = self.run
        reading = Reading(model=run.model, tokenizer=self._tokenizer, context=run.length, seed=seed)
        return run.objective.batches(self.loader.batch, reading)

    def score(self, model: ModelModule, *, tokens: int | None = None, watch: Watch = Watch()) -> Score:  # noqa: B008
        """Returns the objective's loss over the split, which is read once.

        Args:
            model: it is put into evaluation mode.
            tokens: about how many to read at most; None means all.
            watch: hears how far it is.

        Raises:
            DataError: nothing of the text counts.
        """
        batch, rows, count = self.batches(seed=HELD_OUT_SEED), self.run.rows, self.loader.steps_per_epoch
        if tokens is not None:
            count = min(count, -(-tokens // self.loader.tokens_per_batch))
        made = (batch(step).first_rows(min(rows, self.loader.rows_per_epoch - step * rows)) for step in range(count))
        dtype = autocast_dtype(self.run.precision, next(model.parameters()).device)
        return objective_score(model, self.run.objective, made, dtype=dtype, total=count, progress=watch.progress)
