from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.data.corpus import Corpus
from groundup.data.shards import build
from groundup.data.sources import Document
from groundup.errors import DataError
from groundup.text.train import train

TOKENIZER = train(["one two three four, naïve 漢字\n" * 4], vocab=270)
DOCUMENTS = [
    Document(name=f"{i}.txt", text=f"document {i}: naïve 漢字 {'one two three ' * (i % 7)}\n") for i in range(60)
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("shards") / "corpus"
    return build(DOCUMENTS, folder, tokenizer=TOKENIZER, held_out=0.2)


@pytest.fixture
def copied(corpus: Corpus, tmp_path: Path) -> Path:
    return Path(shutil.copytree(corpus.folder, tmp_path / "corpus"))


def test_a_folder_without_a_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is no corpus \(no corpus\.json\)"):
        Corpus.open(tmp_path)
    with pytest.raises(DataError, match="nowhere does not exist"):
        Corpus.open(tmp_path / "nowhere")
    (tmp_path / "corpus.json").write_text("{")
    with pytest.raises(DataError, match=r"corpus\.json is not JSON"):
        Corpus.open(tmp_path)
    (tmp_path / "corpus.json").write_text('{"format": 99}')
    with pytest.raises(DataError, match="has not the form 1 that this version reads"):
        Corpus.open(tmp_path)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda text: text[: len(text) // 2], "is not JSON"),
        (lambda text: "[" * 100_000, "is not JSON"),
        (lambda text: text.replace('"vocab": 270', '"vocab": "270"'), "has no vocab that is a whole number"),
        (lambda text: text.replace('"vocab": 270', '"vocab": true'), "has no vocab that is a whole number"),
        (lambda text: text.replace('"source"', '"sauce"'), "has no source that is a text"),
        (lambda text: text.replace('"uint16"', '"float16"'), "dtype='float16' is not of uint16, uint32"),
        (lambda text: text.replace('"valid": {', '"test": {'), "has no valid that is an object"),
        (lambda text: text.replace('"max_id"', '"min_id"'), "train has no max_id that is a whole number"),
        (lambda text: text.replace('"sha256"', '"md5"'), "train/starts.bin has no sha256 that is a text"),
        (
            lambda text: text.replace('"documents": ', '"documents": 1'),
            "train has files of other sizes than its counts",
        ),
        (lambda text: text.replace('"tokens": ', '"tokens": 1'), "train has files of other sizes than its counts"),
        (lambda text: text.replace("names.jsonl", "other.jsonl"), "train has files of other sizes than its counts"),
    ],
)
def test_a_damaged_manifest_is_one_sentence(copied: Path, damage: Callable[[str], str], told: str) -> None:
    path = copied / "corpus.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(DataError, match=rf"corpus\.json.* {told}.*; .* build the corpus again"):
        Corpus.open(copied)


@pytest.mark.parametrize("name", ["train/tokens-00000.bin", "valid/starts.bin", "train/names.jsonl"])
def test_a_cut_or_missing_file_is_named(copied: Path, name: str) -> None:
    content = (copied / name).read_bytes()
    (copied / name).write_bytes(content[:-2])
    with pytest.raises(DataError, match=rf"{name} has {len(content) - 2} bytes instead of {len(content)}"):
        Corpus.open(copied)
    (copied / name).unlink()
    with pytest.raises(DataError, match=f"{name} is missing; remove the folder and build the corpus again"):
        Corpus.open(copied)


def test_a_flipped_byte_is_found(copied: Path) -> None:
    path = copied / "train" / "tokens-00000.bin"
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"tokens-00000\.bin was changed"):
        Corpus.open(copied).verify()
    Corpus.open(copied).verify("valid")


def test_another_tokenizer_is_refused(corpus: Corpus) -> None:
    assert Corpus.open(corpus.folder, tokenizer=TOKENIZER).vocab == 270
    with pytest.raises(DataError, match=r"made with another tokenizer \(vocabulary of 270; this one has 260\)"):
        Corpus.open(corpus.folder, tokenizer=train(["one two three"] * 9, vocab=260))


def test_a_split_that_does_not_exist_names_the_nearest(corpus: Corpus) -> None:
    with pytest.raises(DataError, match=r"has no split 'validation'; did you mean 'valid'\?"):
        corpus.split("validation")
