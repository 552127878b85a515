from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.data.corpus import Corpus
from groundup.data.shards import build
from groundup.data.sources import Document
from groundup.errors import DataError
from groundup.text.tokenizer import Tokenizer
from groundup.text.train import train

TOKENIZER = train(["one two three four, naïve 漢字\n" * 4], vocab=270)
TEXTS = [f"document {i}: naïve 漢字 {'one two three ' * (i % 7)}\n" for i in range(60)]


def given_documents(texts: list[str]) -> list[Document]:
    return [Document(name=f"{i}.txt", text=text) for i, text in enumerate(texts)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("shards") / "corpus"
    return build(given_documents(TEXTS), folder, tokenizer=TOKENIZER, held_out=0.2)


def test_all_documents_come_back_from_the_two_sides(corpus: Corpus) -> None:
    found = {}
    for side in ("train", "valid"):
        for document in corpus.split(side).documents():
            assert document.ids[-1] == TOKENIZER.end
            text = TOKENIZER.decode(document.ids[:-1])
            assert document.text_bytes == len(text.encode())
            found[document.name] = text
    assert found == {f"{i}.txt": text for i, text in enumerate(TEXTS)}


def test_documents_themselves_say_whether_they_are_pairs(tmp_path: Path) -> None:
    pairs = [Document(name=f"{i}", text=text, target=text.upper()) for i, text in enumerate(TEXTS)]
    made = build(pairs, tmp_path / "pairs", tokenizer=TOKENIZER, held_out=0)
    assert made.pairs and made.split("train").documents_count == 2 * len(TEXTS)
    assert not build(given_documents(TEXTS), tmp_path / "texts", tokenizer=TOKENIZER).pairs
    single = given_documents(["one more"])
    for mixed, said in ((pairs + single, "0.txt is a single text"), (single + pairs, "0 is a pair")):
        with pytest.raises(DataError, match=said):
            build(mixed, tmp_path / "mixed", tokenizer=TOKENIZER)


@pytest.mark.parametrize("names", [{"field": "text"}, {"target": "es"}])
def test_fields_are_named_for_files_alone(names: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="leave them out"):
        build(given_documents(TEXTS), tmp_path / "c", tokenizer=TOKENIZER, **names)


def test_the_manifest_counts_what_is_there(corpus: Corpus) -> None:
    splits = [corpus.split(side) for side in ("train", "valid")]
    assert sum(split.documents_count for split in splits) == len(TEXTS)
    assert sum(split.text_bytes for split in splits) == sum(len(text.encode()) for text in TEXTS)
    for split in splits:
        documents = list(split.documents())
        assert split.tokens == sum(len(document.ids) for document in documents)
        assert split.max_id == max(int(document.ids.max()) for document in documents)
        assert split.starts.tolist() == [0, *np.cumsum([len(document.ids) for document in documents])]
    assert corpus.max_id == max(split.max_id for split in splits) < corpus.vocab == 270


def test_the_hashes_are_those_of_the_files(corpus: Corpus) -> None:
    for side, split in corpus.manifest["splits"].items():
        for name, told in split["files"].items():
            content = (corpus.folder / side / name).read_bytes()
            assert told == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    corpus.verify()


def test_the_tokenizer_lies_with_the_corpus(corpus: Corpus) -> None:
    assert corpus.tokenizer.fingerprint == TOKENIZER.fingerprint == corpus.manifest["tokenizer"]


@pytest.mark.parametrize("workers", [1, 3])
def test_the_same_documents_make_the_same_files(corpus: Corpus, tmp_path: Path, workers: int) -> None:
    folder = tmp_path / "again"
    build(given_documents(TEXTS), folder, tokenizer=TOKENIZER, held_out=0.2, workers=workers)
    assert contents(folder) == contents(corpus.folder)


@pytest.fixture(scope="module")
def in_shards(tmp_path_factory: pytest.TempPathFactory) -> list[Corpus]:
    """The same corpus in shards of other sizes; the smallest cuts every document."""
    return [
        build(
            given_documents(TEXTS),
            tmp_path_factory.mktemp("cut") / "corpus",
            tokenizer=TOKENIZER,
            held_out=0.2,
            shard_tokens=size,
        )
        for size in (40, 333, 10_000)
    ]


@given(data=st.data())
def test_shards_of_any_size_read_as_one(corpus: Corpus, in_shards: list[Corpus], data: st.DataObject) -> None:
    whole = corpus.split("valid")
    start = data.draw(st.integers(0, whole.tokens))
    stop = data.draw(st.integers(start, whole.tokens + 5))
    for cut in in_shards:
        assert cut.split("valid").ids(start, stop).tolist() == whole.ids(start, stop).tolist()


def test_a_shard_is_full_before_the_next_begins(in_shards: list[Corpus]) -> None:
    files = in_shards[1].manifest["splits"]["train"]["files"]
    tokens = [told["bytes"] // 2 for name, told in sorted(files.items()) if name.startswith("tokens")]
    assert len(tokens) > 2
    assert set(tokens[:-1]) == {333} and 0 < tokens[-1] <= 333


@pytest.mark.slow
def test_a_large_vocabulary_takes_four_bytes_an_id(tmp_path: Path) -> None:
    # With the end token and the bytes, one token more than two bytes can tell apart.
    tokenizer = train(["".join(chr(0x20000 + i) for i in range(65_280))], kind="char")
    assert tokenizer.vocab == 65_537
    last = tokenizer.decode([65_536])
    corpus = build(given_documents([f"{last}x"]), tmp_path / "c", tokenizer=tokenizer, held_out=0)
    assert corpus.manifest["dtype"] == "uint32"
    assert next(corpus.split("train").documents()).ids.tolist() == [65_536, *tokenizer.encode("x"), 0]


def test_duplicates_are_dropped_and_counted(tmp_path: Path) -> None:
    corpus = build(given_documents(["same", "same", "other", "same"]), tmp_path / "c", tokenizer=TOKENIZER, held_out=0)
    assert corpus.duplicates == 2
    assert [document.name for document in corpus.split("train").documents()] == ["0.txt", "2.txt"]
    assert list(corpus.split("valid").documents()) == []


def test_names_of_any_kind_are_kept(tmp_path: Path) -> None:
    names = ["line\nend.txt", 'quote".txt', "漢.txt", "\udcff.txt"]
    documents = [Document(name=name, text=name.encode(errors="replace").decode()) for name in names]
    corpus = build(documents, tmp_path / "c", tokenizer=TOKENIZER, held_out=0)
    assert [document.name for document in corpus.split("train").documents()] == names


def test_the_name_of_the_end_token_in_a_text_ends_nothing(tmp_path: Path) -> None:
    corpus = build(given_documents(["a<|end|>b"]), tmp_path / "c", tokenizer=TOKENIZER, held_out=0)
    (document,) = corpus.split("train").documents()
    assert document.ids.tolist().count(TOKENIZER.end) == 1


def test_progress_ends_at_all_bytes(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for i, text in enumerate(TEXTS):
        (tmp_path / "texts" / f"{i:02}.txt").write_text(text * 500)
    calls = []
    build(tmp_path / "texts", tmp_path / "c", tokenizer=TOKENIZER, progress=lambda *call: calls.append(call))
    total = 500 * sum(len(text.encode()) for text in TEXTS)
    assert calls == sorted(calls) and len(calls) > 1
    assert calls[-1] == (total, total)
    assert Corpus.open(tmp_path / "c").source == str(tmp_path / "texts")


def test_the_environment_is_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    build(given_documents(TEXTS), tmp_path / "a", tokenizer=TOKENIZER)
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
    monkeypatch.delenv("TOKENIZERS_PARALLELISM")
    build(given_documents(TEXTS), tmp_path / "b", tokenizer=TOKENIZER)
    assert "TOKENIZERS_PARALLELISM" not in os.environ


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_out": 1.0}, "held_out=1.0 is no share"),
        ({"held_out": -0.1}, "held_out=-0.1 is no share"),
        ({"shard_tokens": 0}, "shard_tokens=0 can hold nothing"),
        ({"workers": 0}, "workers=0 cannot work"),
        ({"tokenizer": Tokenizer(TOKENIZER.definition)}, "the tokenizer has no token that ends a document"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {"tokenizer": TOKENIZER} | options
    with pytest.raises(DataError, match=message):
        build(given_documents(TEXTS), tmp_path / "c", **settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    """Builds from 8 and from 48 MB of text in processes of their own and compares their peaks."""
    script = (
        "import resource, sys\n"
        "from groundup.data.shards import build\n"
        "from groundup.text.tokenizer import Tokenizer\n"
        "build(sys.argv[1], sys.argv[2], tokenizer=Tokenizer.load(sys.argv[3]), workers=2)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    TOKENIZER.save(tmp_path / "tokenizer")
    peaks_bytes = []
    for megabytes in (8, 48):
        source = tmp_path / f"{megabytes}.txt"
        with source.open("w") as file:
            for line in range(megabytes * 10_000):
                file.write(f"line {line:07} " + "one two three four five six " * 3 + "\n")
        command = [
            sys.executable,
            "-c",
            script,
            str(source),
            str(tmp_path / f"c{megabytes}"),
            str(tmp_path / "tokenizer"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks_bytes.append(int(done.stdout) * (1 if sys.platform == "darwin" else 1024))
    assert peaks_bytes[1] < peaks_bytes[0] + (100 << 20), peaks_bytes
