from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from groundup.context import NOT_COUNTED
from groundup.data.corpus import Corpus
from groundup.data.pairs import GROUP, Pairs
from groundup.data.shards import build
from groundup.data.sources import documents
from groundup.errors import DataError
from groundup.families.llama import llama
from groundup.families.t5 import t5
from groundup.objectives.objective import Reading
from groundup.objectives.translation import Translation
from groundup.text.train import train

PAIRS = [("one " * (n % 5 + 1) + str(n), str(n) + " uno" * (n % 5 + 1)) for n in range(60)]
WORDS = train([text for pair in PAIRS for text in pair], kind="char")


@pytest.fixture(scope="module", params=["jsonl", "tsv"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / f"pairs.{request.param}"
    if request.param == "tsv":
        path.write_text("number\ten\tes\n" + "".join(f"{i}\t{a}\t{b}\n" for i, (a, b) in enumerate(PAIRS)))
    else:
        path.write_text("".join(json.dumps({"en": a, "es": b}) + "\n" for a, b in PAIRS))
    return path


@pytest.fixture(scope="module")
def corpus(source: Path) -> Corpus:
    return build(source, source.parent / "corpus", tokenizer=WORDS, field="en", target="es", held_out=0.2)


def texts(loader: Pairs, step: int) -> list[tuple[str, str]]:
    batch, end = loader.batch(step), WORDS.end
    assert batch.source is not None
    rows = zip(batch.source.tolist(), batch.ids.tolist(), strict=True)
    return [(WORDS.decode(a[: a.index(end)]), WORDS.decode(b[: b.index(end)])) for a, b in rows]


def test_documents_of_pairs_are_read_from_their_fields(source: Path) -> None:
    assert [(one.text, one.target) for one in documents(source, field="en", target="es")] == PAIRS
    with pytest.raises(DataError, match="has no field 'fr'"):
        next(documents(source, field="en", target="fr"))


def test_an_epoch_reads_every_pair_once_and_both_sides_hold_whole_pairs(corpus: Corpus) -> None:
    seen = []
    for split in ("train", "valid"):
        loader = Pairs(corpus, split=split, rows=1, order_by="file")
        seen += [pair for step in range(loader.steps_per_epoch) for pair in texts(loader, step)]
    assert sorted(seen) == sorted(PAIRS)
    loader = Pairs(corpus, rows=1, seed=3)
    steps = GROUP * -(-loader.rows_per_epoch // GROUP)
    drawn = [pair for step in range(steps) for pair in texts(loader, step)]
    assert set(drawn) == {
        pair for step in range(loader.rows_per_epoch) for pair in texts(Pairs(corpus, rows=1, order_by="file"), step)
    }


def test_any_batch_can_be_had_again_and_pairs_of_like_lengths_are_together(corpus: Corpus) -> None:
    one, other = Pairs(corpus, rows=4, seed=1), Pairs(corpus, rows=4, seed=1)
    later = [texts(one, step) for step in range(40)]
    assert texts(other, 39) == later[39]
    assert texts(Pairs(corpus, rows=4, seed=2), 39) != later[39]
    padding = []
    for step in range(GROUP):
        batch = one.batch(step)
        assert batch.source is not None and batch.source_lengths is not None
        padding.append(1 - batch.source_lengths.sum().item() / batch.source.numel())
    assert np.mean(padding) < 0.05


@pytest.mark.parametrize(
    "model",
    [
        t5(width=16, layers=1, heads=2, hidden=24, vocab=WORDS.vocab, context=12),
        llama(width=16, layers=1, heads=2, hidden=24, vocab=WORDS.vocab, context=24),
    ],
    ids=["pair", "decoder"],
)
def test_only_targets_count_and_long_pairs_are_cut_before_their_end(corpus: Corpus, model) -> None:
    loader = Pairs(corpus, rows=8, order_by="file")
    reading = Reading(model=model, tokenizer=WORDS, context=model.longest, seed=0)
    batch = Translation().batches(loader.batch, reading)(1)
    assert batch.ids.shape[1] <= model.longest
    for row, (_, target) in enumerate(texts(loader, 1)):
        counted = batch.targets[row][batch.targets[row] != NOT_COUNTED].tolist()
        assert counted[-1] == WORDS.end
        assert target.startswith(WORDS.decode(counted[:-1]))
    assert batch.counted_tokens < batch.read_tokens
    assert torch.equal(Translation().batches(loader.batch, reading)(1).ids, batch.ids)


def test_what_is_no_corpus_of_pairs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text\n" * 100)
    made = build(tmp_path / "a.txt", tmp_path / "corpus", tokenizer=WORDS)
    with pytest.raises(DataError, match="holds texts and no pairs"):
        Pairs(made, rows=2)
    with pytest.raises(DataError, match="has no fields, so no pairs"):
        next(documents(tmp_path / "a.txt", field="en", target="es"))
    (tmp_path / "bad.tsv").write_text("en\tes\none\tuno\nalone\n")
    with pytest.raises(DataError, match="line 3 is not of 2 fields, as the first is, but of 1; mend it"):
        list(documents(tmp_path / "bad.tsv", field="en", target="es"))
