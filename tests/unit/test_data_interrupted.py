"""A corpus is complete or absent, whatever happens while it is built."""

from __future__ import annotations

import errno
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from groundup.data.corpus import Corpus
from groundup.data.shards import build
from groundup.data.sources import Document
from groundup.errors import DataError, StorageError
from groundup.text.train import train

TOKENIZER = train(["one two three four, naïve 漢字\n" * 4], vocab=270)
DOCUMENTS = [
    Document(name=f"{i}.txt", text=f"document {i}: naïve 漢字 {'one two three ' * (i % 7)}\n") for i in range(60)
]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_source_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def failing() -> Iterator[Document]:
        yield from DOCUMENTS
        raise DataError("the source broke")

    with pytest.raises(DataError, match="the source broke"):
        build(failing(), tmp_path / "c", tokenizer=TOKENIZER)
    assert list(tmp_path.iterdir()) == []


KILLED = """
import sys, time
from groundup.data import shards
from groundup.data.sources import Document
from groundup.text.tokenizer import Tokenizer

def slow():
    for i in range(1000):
        yield Document(name=str(i), text=f"document {i} " * 500)
        if i == 300:
            print("half way", flush=True)
            time.sleep(600)

shards.build(slow(), sys.argv[1], tokenizer=Tokenizer.load(sys.argv[2]))
"""


def test_a_killed_build_leaves_no_corpus_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path / "tokenizer")
    folder, building = tmp_path / "corpus", tmp_path / ".corpus.building"
    command = [sys.executable, "-c", KILLED, str(folder), str(tmp_path / "tokenizer")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"half way\n"
        assert (building / "train").is_dir()
        with pytest.raises(StorageError, match=r"another process works on .*corpus"):
            build(DOCUMENTS, folder, tokenizer=TOKENIZER)
        process.send_signal(signal.SIGKILL)
    assert building.is_dir()
    assert not folder.exists()
    (building / "left over").touch()
    build(DOCUMENTS, folder, tokenizer=TOKENIZER, held_out=0.2)
    assert not building.exists()
    assert not any("left over" in name or "lock" in name for name in contents(folder))
    assert Corpus.open(folder).split("train").documents_count > 40


def test_what_is_there_already_is_never_touched(tmp_path: Path) -> None:
    copied = build(DOCUMENTS, tmp_path / "c", tokenizer=TOKENIZER).folder
    before = contents(copied)
    with pytest.raises(DataError, match="exists already; choose another folder, or remove it first"):
        build(DOCUMENTS[:1], copied, tokenizer=TOKENIZER, held_out=0)
    assert contents(copied) == before


def test_an_empty_folder_may_be_there_already(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    build(DOCUMENTS, tmp_path / "c", tokenizer=TOKENIZER)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_disk_without_locks_holds_a_corpus_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("fcntl.flock", refused)
    build(DOCUMENTS, tmp_path / "c", tokenizer=TOKENIZER)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_folder_at_home_is_written_and_read_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    build(DOCUMENTS, "~/c", tokenizer=TOKENIZER)
    assert (tmp_path / "home" / "c" / "corpus.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert Corpus.open("~/c").source == "documents given by a program"


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="a part of its path is a file"):
        build(DOCUMENTS, tmp_path / "file" / "c", tokenizer=TOKENIZER)


@pytest.mark.parametrize(
    ("folder", "told"),
    [
        ("circle", "exists already"),
        ("circle/c", "links lead in a circle"),
        ("n" * 300, "a name in it is too long"),
        ("/", "exists already"),
        ("/proc/c", "takes nothing new"),
    ],
)
def test_a_folder_that_cannot_be_made_is_told_before_work_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, told: str
) -> None:
    def untouched() -> Iterator[Document]:
        pytest.fail("a document was read")
        yield from DOCUMENTS

    monkeypatch.chdir(tmp_path)
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises((DataError, StorageError), match=told):
        build(untouched(), folder, tokenizer=TOKENIZER)
    assert [path.name for path in tmp_path.iterdir()] == ["circle"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    """Stands in for a full disk: files may not grow beyond 4 KiB, which the system answers with another number."""
    script = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from groundup import errors\n"
        "from groundup.data.shards import build\n"
        "from groundup.data.sources import Document\n"
        "from groundup.text.tokenizer import Tokenizer\n"
        "tokenizer = Tokenizer.load(sys.argv[2])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: build([Document(name='a', text='x y ' * 9999)], sys.argv[1], tokenizer=tokenizer, held_out=0)\n"
        "except errors.StorageError as fault: print(fault)\n"
    )
    TOKENIZER.save(tmp_path / "tokenizer")
    command = [sys.executable, "-c", script, str(tmp_path / "c"), str(tmp_path / "tokenizer")]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.match(r"cannot write .*c: a file of it is too large", told)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer"]
