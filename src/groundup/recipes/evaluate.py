"""How well a model predicts a text, beside what general compressors need for it; or how well it does what it learnt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from groundup.data.corpus import Corpus, TokenDocument
from groundup.data.shards import build
from groundup.data.sources import Document, documents
from groundup.devices import autocast_dtype
from groundup.errors import ConfigError, TextError
from groundup.evals import compressors
from groundup.evals.perplexity import perplexity
from groundup.files import as_path
from groundup.hub.resolve import find
from groundup.infer.language_model import LanguageModel
from groundup.infer.load import load
from groundup.recipes.batches import Text
from groundup.recipes.place import Place
from groundup.recipes.settings import Run, read_run
from groundup.recipes.watch import Watch
from groundup.text.tokenizer import Tokenizer
from groundup.training.budget import Steps


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
    found = find(model)
    place, is_run = Place(as_path(model)), found.kind == "run"
    if source is None and not is_run and (found.weights or found.repo):
        raise ConfigError(f"{model} is not a run with a text that it held out; name one with --data")
    loaded = load(model)
    words = _tokenizer(model, loaded)
    run = read_run(place.config) if is_run else Run(model=loaded.spec, budget=Steps(1))
    figures = {"model": model, "text": source or "held out by the run"}
    if not run.objective.whole:
        run = run if context is None else run.replace(context=context)
        with _text(run, place, words, source=source, field=field) as text:
            score = text.score(loaded.module, watch=watch)
        return figures | {"objective": type(run.objective).__name__} | score.to_dict()
    read = _documents(run, place, words, source=source, field=field)
    assert words.end is not None
    score = perplexity(
        loaded.module,
        read,
        begin=words.end if is_run or words.begin is None else words.begin,  # as a run trains
        context=run.length if context is None else context,
        stride=stride,
        dtype=autocast_dtype(run.precision, next(loaded.module.parameters()).device),
        progress=watch.progress,
    )
    bits = compressors.beside(score, read, words)
    return figures | score.to_dict() | ({"compressors": bits} if bits else {})


def _tokenizer(model: str, loaded: LanguageModel) -> Tokenizer:
    words = loaded.tokenizer
    if words is None or words.end is None:
        lacks = "no tokenizer" if words is None else "a tokenizer without an end token"
        raise TextError(f"{model} has {lacks}; put a tokenizer.json with its tokenizer_config.json beside its weights")
    return words


@contextmanager
def _text(run: Run, place: Place, words: Tokenizer, *, source: str | None, field: str | None) -> Iterator[Text]:
    """A source, or what the run held out, as the run's objective reads it."""
    if source is None:
        yield Text(run, _corpus(run, place, words), split="valid", order_by="file")
        return
    names: dict[str, Any] = {"field": field or run.data.field, "target": run.target}
    with TemporaryDirectory() as scratch:
        made = build(source, Path(scratch) / "corpus", tokenizer=words, held_out=0.0, **names)
        yield Text(run, made, order_by="file")


def _documents(
    run: Run, place: Place, words: Tokenizer, *, source: str | None, field: str | None
) -> list[TokenDocument]:
    """A source, or what the run held out, as whole documents."""
    if source is None:
        return list(_corpus(run, place, words).split("valid").documents())
    return [_tokenized(document, words) for document in documents(source, field=field)]


def _corpus(run: Run, place: Place, words: Tokenizer) -> Corpus:
    corpus = Corpus.open(place.corpus_of(run.data.source), tokenizer=words)
    corpus.verify("valid")
    return corpus


def _tokenized(document: Document, words: Tokenizer) -> TokenDocument:
    ids = np.array([*words.encode(document.text), words.end])
    return TokenDocument(name=document.name, text_bytes=len(document.text.encode()), ids=ids)
