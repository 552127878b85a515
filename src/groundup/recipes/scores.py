"""How well a run's model does on the text that the run held out: whole, document by document, or quickly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from groundup import devices
from groundup.data.corpus import Corpus, TokenDocument
from groundup.evals.perplexity import Score, document_scores, perplexity, together
from groundup.files import atomic_write
from groundup.model.model import ModelModule
from groundup.recipes.batches import Text
from groundup.recipes.place import Place
from groundup.recipes.settings import Run
from groundup.recipes.watch import Watch

QUICK_TOKENS = 60_000  # of the validation text, for the scores along the way


def final_score(run: Run, place: Place, model: ModelModule, corpus: Corpus, *, watch: Watch) -> Score:
    """Returns the score on the validation text, and writes that of each of its documents, by which runs are compared.

    Raises:
        StorageError: the place cannot be written.
    """
    if not run.objective.whole:
        return _validation(run, corpus).score(model, tokens=None, watch=watch)
    texts = list(corpus.split("valid").documents())
    every = document_scores(model, texts, **_reading(run, model, corpus), progress=watch.progress)
    lines = (json.dumps({"document": text.name, **score.to_dict()}) for text, score in zip(texts, every, strict=True))
    atomic_write(place.documents, "".join(f"{line}\n" for line in lines))
    return together(every)


def quick_score(run: Run, model: ModelModule, corpus: Corpus, *, watch: Watch) -> Score:
    """Returns the score on the first tokens of the validation text, in windows that do not overlap."""
    if not run.objective.whole:
        return _validation(run, corpus).score(model, tokens=QUICK_TOKENS, watch=watch)
    texts = _first(corpus.split("valid").documents(), tokens=QUICK_TOKENS)
    settings = _reading(run, model, corpus) | {"stride": run.length}
    return perplexity(model, texts, **settings, progress=watch.progress)


def _validation(run: Run, corpus: Corpus) -> Text:
    return Text(run, corpus, split="valid", order_by="file")


def _reading(run: Run, model: ModelModule, corpus: Corpus) -> dict[str, Any]:
    """How whole documents are read: as many tokens at once as in training, so that it takes no more memory."""
    dtype = devices.autocast_dtype(run.precision, next(model.parameters()).device)
    batch = {"context": run.length, "tokens_per_batch": run.rows * run.length}
    return {"begin": corpus.manifest["end"], "dtype": dtype, **batch}


def _first(documents: Iterator[TokenDocument], *, tokens: int) -> Iterator[TokenDocument]:
    """Yields documents as long as they have no more tokens than this together; the first one in any case."""
    for number, document in enumerate(documents):
        tokens -= len(document.ids)
        if number and tokens < 0:
            return
        yield document
