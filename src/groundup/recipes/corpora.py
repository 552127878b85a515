"""A run's tokenizer and corpus, made now unless they are there."""

from __future__ import annotations

from groundup.data.corpus import Corpus
from groundup.data.shards import build
from groundup.data.sources import documents
from groundup.errors import DataError
from groundup.files import replacing
from groundup.objectives.objective import Reading
from groundup.recipes.place import Place
from groundup.recipes.settings import Run
from groundup.recipes.watch import Watch
from groundup.text.tokenizer import Tokenizer
from groundup.text.train import train as train_tokenizer

FEW_BYTES = 50_000  # of text that is held out, below which a score says little


def corpus_of(run: Run, place: Place, watch: Watch) -> Corpus:
    """Returns the run's corpus, with its tokenizer beside it.

    Raises:
        DataError: the source cannot be read or has too little text.
        TextError: the tokenizer lacks what the objective needs.
    """
    found = place.corpus_of(run.data.source)
    if found.exists():
        mine = Tokenizer.load(place.tokenizer) if place.tokenizer.exists() else None
        corpus = Corpus.open(found, tokenizer=mine)
        corpus.verify()
        if mine is None:
            _save(corpus.tokenizer, place)
            _say_unused(run, corpus, watch)
        return corpus
    tokenizer = _tokenizer(run, place, watch)
    watch.stage("Cleaning, splitting and tokenizing the text")
    corpus = build(
        run.data.source,
        place.corpus,
        field=run.data.field,
        target=run.target,
        tokenizer=tokenizer,
        held_out=run.data.held_out,
        seed=run.seed,
        progress=watch.progress,
    )
    held, every = (sum(corpus.split(side).text_bytes for side in sides) for sides in (["valid"], ["valid", "train"]))
    if held < FEW_BYTES and held < run.data.held_out * every / 2:
        watch.say(
            f"Only {held:,} bytes are held out, {held / every:.1%} of the text, for documents are held out whole: "
            "scores are rough. Give more documents, or raise data.held_out."
        )
    return corpus


def _say_unused(run: Run, corpus: Corpus, watch: Watch) -> None:
    """Tells which settings a corpus that is there already makes idle."""
    if run.data.tokenizer is None and run.data.vocab not in (None, corpus.vocab):
        watch.say(
            f"The corpus brings a tokenizer of {corpus.vocab:,} tokens, so data.vocab={run.data.vocab} is not used."
        )


def check_source(run: Run) -> None:
    """Makes sure that what a run is to read is there, before anything is made.

    Raises:
        DataError: it cannot be read, or is a corpus that holds no text out.
        TextError: the corpus's tokenizer lacks a special token that the run's objective needs.
    """
    if not Corpus.is_there(run.data.source):
        next(documents(run.data.source, field=run.data.field, target=run.target))
        return
    corpus = Corpus.open(run.data.source)
    check_tokenizer(run, corpus.tokenizer)
    if not corpus.split("valid").tokens:
        raise DataError(f"{corpus.folder} holds no text out, by which a run is scored; build it with --held-out 0.01")


def check_tokenizer(run: Run, tokenizer: Tokenizer) -> None:
    """Makes sure that a tokenizer has the special tokens that the run's objective needs.

    Raises:
        TextError: it lacks one.
    """
    reading = Reading(model=run.model, tokenizer=tokenizer, context=run.length, seed=run.seed)
    for name in run.objective.special:
        reading.special(name, run.objective)


def _tokenizer(run: Run, place: Place, watch: Watch) -> Tokenizer:
    if place.tokenizer.exists():
        return Tokenizer.load(place.tokenizer)
    if run.data.tokenizer is not None:
        tokenizer = Tokenizer.load(run.data.tokenizer)
        check_tokenizer(run, tokenizer)
    else:
        watch.stage("Training the tokenizer")
        read = documents(run.data.source, field=run.data.field, target=run.target)
        texts = (text for document in read for text in document.texts)
        vocab, special = run.data.vocab or run.model.predictor.vocab, run.objective.special
        tokenizer = train_tokenizer(texts, kind=run.data.tokens, vocab=vocab, special=special)
    _save(tokenizer, place)
    return tokenizer


def _save(tokenizer: Tokenizer, place: Place) -> None:
    with replacing(place.tokenizer) as folder:
        tokenizer.save(folder)
