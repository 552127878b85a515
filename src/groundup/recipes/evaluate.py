"""How well a model predicts a text, beside what general compressors need for it; or how well it does what it learnt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from groundup.data.corpus import Corpus, TokenDocument
from groundup.data.shards import build
from groundup.data.sources import documents
from groundup.devices import autocast_dtype
from groundup.errors import ConfigError, TextError
from groundup.evals import compressors
from groundup.evals.perplexity import perplexity
from groundup.hub.resolve import find
from groundup.infer.language_model import LanguageModel
from groundup.infer.load import load
from groundup.recipes.batches import Text
from groundup.recipes.place import Place
from groundup.recipes.settings import Run, read_run
from groundup.recipes.watch import Watch
from groundup.text.tokenizer import Tokenizer
from groundup.training.budget import Steps

COMPRESSED_BYTES = 8 * 2**20  # of a text at most: xz takes a second a megabyte


def evaluate(
    model: str,
    source: str | None = None,
    *,
    field: str | None = None,
    context: int | None = None,
    stride: int | None = None,
    watch: Watch = Watch(),  # noqa: B008 - it has no state
) -> dict[str, Any]:
    """Returns loss, perplexity and bits per byte of a MODEL on a text, and of ``compressors`` where it is short.

    Of a model that does not predict each token of a text from those before it, the loss is that of the run's objective,
    or of the usual one of its kind, and there are no bits per byte.

    Args:
        model: any MODEL with weights and a tokenizer.
        source: the text; None means what the run held out.
        field: the name of the text in .jsonl, .tsv and .parquet files.
        context: tokens of a window; None means those of the run's training, or the model's context.
        stride: tokens by which windows advance; None means half of the context.
        watch: who hears how it goes.

    Raises:
        ConfigError: no text was named, and the model is not a run.
        TextError: the model has no tokenizer, or its tokenizer no end token.
        DataError: the text cannot be read.
    """
    loaded = load(model)
    words = loaded.tokenizer
    if words is None or words.end is None:
        lacks = "no tokenizer" if words is None else "a tokenizer without an end token"
        raise TextError(f"{model} has {lacks}; put a tokenizer.json with its tokenizer_config.json beside its weights")
    place = Place(Path(model).expanduser())
    run = read_run(place.config) if find(model).kind == "run" else None
    if run is not None and context is None:
        context = run.length
    as_run = run or Run(model=loaded.spec, budget=Steps(1))
    if not as_run.objective.whole:
        as_run = as_run.replace(context=context)
        corpus = None if run is None or source is not None else Corpus.open(place.corpus_of(run.data.source))
        return {"model": model, "text": source or "held out by the run"} | _learnt(
            as_run, loaded, source=source, field=field, corpus=corpus, watch=watch
        )
    if source is not None:
        read = list(_tokenized(source, words, field=field))
    elif run is None:
        raise ConfigError(f"{model} is not a run with a text that it held out; name one with --data")
    else:
        corpus = Corpus.open(place.corpus_of(run.data.source), tokenizer=words)
        corpus.verify("valid")
        read = list(corpus.split("valid").documents())
    device = next(loaded.module.parameters()).device
    score = perplexity(
        loaded.module,
        read,
        begin=words.end if words.begin is None or run is not None else words.begin,  # as a run trains
        context=context,
        stride=stride,
        dtype=autocast_dtype("auto" if run is None else run.precision, device),
        progress=watch.progress,
    )
    figures: dict[str, Any] = {"model": model, "text": source or "held out by the run", **score.to_dict()}
    if score.text_bytes is not None and score.text_bytes <= COMPRESSED_BYTES:
        texts = [words.decode(doc.ids[:-1]).encode() for doc in read]
        if sum(map(len, texts)) == score.text_bytes:  # not of a tokenizer that cannot give back its text
            figures["compressors"] = compressors.bits_per_byte(texts)
    return figures


def _learnt(
    run: Run, loaded: LanguageModel, *, source: str | None, field: str | None, corpus: Corpus | None, watch: Watch
) -> dict[str, Any]:
    """The loss of a run's objective on a source, or on what is held out in a corpus."""
    figures = {"objective": type(run.objective).__name__}
    if corpus is not None:
        corpus.verify("valid")
        return figures | Text(run, corpus, split="valid", order_by="file").score(loaded.module, watch=watch).to_dict()
    if source is None:
        raise ConfigError("the model is not a run with a text that it held out; name one with --data")
    assert loaded.tokenizer is not None
    names: dict[str, Any] = {"field": field or run.data.field, "target": run.target}
    with TemporaryDirectory() as scratch:
        made = build(source, Path(scratch) / "corpus", tokenizer=loaded.tokenizer, held_out=0.0, **names)
        return figures | Text(run, made, order_by="file").score(loaded.module, watch=watch).to_dict()


def _tokenized(source: str, tokenizer: Tokenizer, *, field: str | None) -> Iterator[TokenDocument]:
    for document in documents(source, field=field):
        ids = np.array([*tokenizer.encode(document.text), tokenizer.end])
        yield TokenDocument(name=document.name, text_bytes=len(document.text.encode()), ids=ids)
