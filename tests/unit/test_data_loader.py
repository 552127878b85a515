from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.context import NOT_COUNTED, Batch
from groundup.data.corpus import Corpus
from groundup.data.loader import Loader
from groundup.data.shards import build
from groundup.data.sources import Document
from groundup.errors import DataError
from groundup.text.train import train

TOKENIZER = train(["abc"], vocab=257)  # one token a byte, so that tokens can be read
END = TOKENIZER.end
TEXTS = ["first text", "x", "the second, a longer text", "third", "fourth one" * 3, "z" * 41]

SIZES = {"rows": st.integers(1, 9), "context": st.integers(1, 40), "seed": st.integers(0, 2**32)}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    documents = [Document(name=str(i), text=text) for i, text in enumerate(TEXTS)]
    folder = tmp_path_factory.mktemp("loader") / "corpus"
    return build(documents, folder, tokenizer=TOKENIZER, held_out=0, shard_tokens=50)


def stream(corpus: Corpus) -> list[int]:
    """All tokens of the split, one document after another."""
    return [int(id) for document in corpus.split("train").documents() for id in document.ids]


def in_file_order(corpus: Corpus, context: int, **options: Any) -> Batch:
    """One batch with all windows of an epoch in the order of the file."""
    windows = Loader(corpus, rows=1, context=context).rows_per_epoch
    return Loader(corpus, rows=windows, context=context, order_by="file", **options).batch(0)


def places(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Segments and positions, which a loader that packs apart always gives."""
    assert batch.segments is not None and batch.positions is not None
    return batch.segments, batch.positions


def same(one: Batch, other: Batch) -> bool:
    names = ("ids", "targets", "segments", "positions")
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)


@settings(max_examples=40)
@given(**SIZES, epoch=st.integers(0, 3))
def test_an_epoch_reads_every_token_once(corpus: Corpus, rows: int, context: int, seed: int, epoch: int) -> None:
    loader = Loader(corpus, rows=rows, context=context, seed=seed)
    windows = in_file_order(corpus, context).ids.tolist()
    first, last = epoch * loader.rows_per_epoch, (epoch + 1) * loader.rows_per_epoch
    read = []
    for step in range(first // rows, -(-last // rows)):
        for row, ids in enumerate(loader.batch(step).ids.tolist()):
            if first <= step * rows + row < last:
                read.append(ids)
    assert sorted(read) == sorted(windows)
    assert [id for window in windows for id in window][: len(stream(corpus))] == stream(corpus)


@settings(max_examples=40)
@given(**SIZES, steps=st.lists(st.integers(0, 200), min_size=2, max_size=5))
def test_a_batch_does_not_depend_on_those_before(
    corpus: Corpus, rows: int, context: int, seed: int, steps: list[int]
) -> None:
    used = Loader(corpus, rows=rows, context=context, seed=seed)
    for step in steps:
        fresh = Loader(Corpus.open(corpus.folder), rows=rows, context=context, seed=seed)
        assert same(used.batch(step), fresh.batch(step))


@given(context=st.integers(1, 60))
def test_every_token_but_the_last_predicts_the_next(corpus: Corpus, context: int) -> None:
    tokens = stream(corpus)
    targets = in_file_order(corpus, context).targets.flatten().tolist()
    assert targets[: len(tokens)] == [*tokens[1:], NOT_COUNTED]
    assert set(targets[len(tokens) :]) <= {NOT_COUNTED}


def test_the_end_token_is_learnt_and_predicts_how_the_next_document_begins(corpus: Corpus) -> None:
    batch = in_file_order(corpus, 16)
    assert batch.targets.flatten().tolist().count(END) == len(TEXTS)
    begins = [int(document.ids[0]) for document in corpus.split("train").documents()]
    after_ends = batch.targets[batch.ids == END].tolist()  # padding has the id of the end token here
    assert after_ends[: len(TEXTS)] == [*begins[1:], NOT_COUNTED]
    assert set(after_ends[len(TEXTS) :]) <= {NOT_COUNTED}


@given(context=st.integers(1, 60))
def test_segments_and_positions_begin_anew_with_each_document(corpus: Corpus, context: int) -> None:
    batch = in_file_order(corpus, context)
    documents = Loader(corpus, rows=1, context=1)._split.starts.tolist()
    rows = zip(*(told.tolist() for told in places(batch)), strict=True)
    for row, (segments, positions) in enumerate(rows):
        for place, (segment, position) in enumerate(zip(segments, positions, strict=True)):
            begins = place == 0 or row * context + place + 1 in documents
            assert position == (0 if begins else positions[place - 1] + 1)
            assert segment == (0 if place == 0 else segments[place - 1] + begins)


def test_a_window_by_hand(tmp_path: Path) -> None:
    documents = [Document(name=name, text=text) for name, text in (("a", "ab"), ("b", "cde"))]
    corpus = build(documents, tmp_path / "c", tokenizer=TOKENIZER, held_out=0)
    a, b, c, d, e = TOKENIZER.encode("abcde")
    batch = Loader(corpus, rows=2, context=5, order_by="file").batch(0)
    assert batch.ids.tolist() == [[a, b, END, c, d], [e, END, 0, 0, 0]]
    assert batch.targets.tolist() == [[b, END, c, d, e], [END, -100, -100, -100, -100]]
    segments, positions = places(batch)
    assert segments.tolist() == [[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]]
    assert positions.tolist() == [[0, 1, 0, 1, 2], [0, 0, 1, 2, 3]]
    assert {told.dtype for told in (batch.ids, batch.targets, segments, positions)} == {torch.int64}


def test_packed_together_documents_read_on(corpus: Corpus) -> None:
    batch = in_file_order(corpus, 16, packing="together")
    assert batch.segments is None and batch.positions is None
    tokens = stream(corpus)
    assert batch.ids.flatten().tolist()[: len(tokens)] == tokens
    assert batch.targets.flatten().tolist()[: len(tokens)] == [*tokens[1:], NOT_COUNTED]
    assert batch.counted_tokens == len(tokens) - 1


@given(**SIZES, world=st.integers(1, 4), step=st.integers(0, 50))
def test_ranks_share_a_batch(corpus: Corpus, rows: int, context: int, seed: int, world: int, step: int) -> None:
    options = {"rows": rows * world, "context": context, "seed": seed}
    whole = Loader(corpus, **options).batch(step)
    parts = [Loader(corpus, **options, rank=rank, world=world).batch(step) for rank in range(world)]
    assert all(part.ids.shape == (rows, context) for part in parts)
    joined = [
        torch.cat([getattr(part, name) for part in parts]) for name in ("ids", "targets", "segments", "positions")
    ]
    assert same(whole, Batch(**dict(zip(("ids", "targets", "segments", "positions"), joined, strict=True))))


def test_epochs_and_seeds_have_orders_of_their_own(corpus: Corpus) -> None:
    windows = Loader(corpus, rows=1, context=4).rows_per_epoch
    orders = set()
    for seed in range(3):
        loader = Loader(corpus, rows=windows, context=4, seed=seed)
        orders |= {tuple(map(tuple, loader.batch(epoch).ids.tolist())) for epoch in range(3)}
    assert len(orders) == 9


def test_the_books_of_a_loader(corpus: Corpus) -> None:
    tokens = len(stream(corpus))
    loader = Loader(corpus, rows=4, context=10)
    assert loader.rows_per_epoch == -(-tokens // 10) == 12
    assert (loader.steps_per_epoch, loader.tokens_per_batch) == (3, 40)


def test_a_split_shorter_than_a_row_is_refused(corpus: Corpus) -> None:
    tokens = len(stream(corpus))
    assert Loader(corpus, rows=1, context=tokens).batch(0).ids.shape == (1, tokens)
    with pytest.raises(
        DataError, match=f"train of .* has {tokens} tokens, fewer than one row of context={tokens + 1};"
    ):
        Loader(corpus, rows=1, context=tokens + 1)
    with pytest.raises(DataError, match=r"valid of .* has 0 tokens"):
        Loader(corpus, split="valid", rows=1, context=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 0}, "rows=0 and context=4 make no batch"),
        ({"rows": 6, "rank": 4, "world": 4}, "rank=4 of world=4 cannot share rows=6"),
        ({"rows": 6, "world": 4}, "choose rows as a multiple of world"),
        ({"split": "test"}, "has no split 'test'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(corpus: Corpus, options: dict[str, Any], message: str) -> None:
    given_settings: dict[str, Any] = {"rows": 4, "context": 4} | options
    with pytest.raises(DataError, match=message):
        Loader(corpus, **given_settings)


def test_a_step_before_the_first_is_refused(corpus: Corpus) -> None:
    with pytest.raises(DataError, match="step=-1 is before the first batch"):
        Loader(corpus, rows=1, context=4).batch(-1)


def test_the_corpus_on_disk_is_never_written_to(corpus: Corpus) -> None:
    ids = corpus.split("train").ids(0, 4)
    with pytest.raises(ValueError, match="read-only"):
        ids[0] = 1
    loader = Loader(corpus, rows=2, context=4)
    loader.batch(0).ids.fill_(7)
    assert np.array_equal(loader._split.ids(0, 4), ids)
