from __future__ import annotations

import gzip
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from groundup.data.formats import numbered
from groundup.data.sources import documents, total_bytes
from groundup.errors import DataError

ROWS = '{"text": "one"}\n\n{"text": "two\\nlines", "id": 7}\n'


def read(source: str | Path, **options: Any) -> dict[str, str]:
    """The documents by name; a name that comes twice is an error."""
    found = [(document.name, document.text) for document in documents(source, **options)]
    assert len(dict(found)) == len(found)
    return dict(found)


def table(path: Path, **columns: list[object]) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("b.txt", "a.md", "sub/c.py", "sub/d.RST"):
        (tmp_path / name).write_text(f"text of {name}")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0")
    found = read(tmp_path)
    assert list(found) == ["a.md", "b.txt", "sub/c.py", "sub/d.RST"]
    assert found["sub/c.py"] == "text of sub/c.py"


def test_packed_files_are_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"alpha"))
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"beta"))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(ROWS.encode()))
    (tmp_path / "d.txt.zst").write_bytes(zstandard.compress(b"delta "))
    two_frames = zstandard.compress(b"first ") + zstandard.compress(b"second")
    (tmp_path / "e.zst").write_bytes(two_frames)
    assert read(tmp_path) == {
        "a.txt.gz": "alpha",
        "b.gz": "beta",
        "c.jsonl.gz:1": "one",
        "c.jsonl.gz:3": "two\nlines",
        "d.txt.zst": "delta ",
        "e.zst": "first second",
    }


def test_rows_of_json_lines_are_documents(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + ROWS.encode())
    assert read(tmp_path / "a.jsonl") == {"a.jsonl:1": "one", "a.jsonl:3": "two\nlines"}


def test_rows_of_a_table_are_documents(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", id=[1, 2, 3], content=["one", None, "three"])
    assert read(path) == {"a.parquet:1": "one", "a.parquet:3": "three"}


def test_the_field_of_the_text_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "no", "answer": "yes"}')
    table(tmp_path / "b.parquet", text=["no"], answer=["yes too"])
    assert read(tmp_path, field="answer") == {"a.jsonl:1": "yes", "b.parquet:1": "yes too"}


def test_hidden_files_and_links_in_a_circle_are_left_out(tmp_path: Path) -> None:
    for name in (".hidden.txt", ".git/config.txt", "sub/seen.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "sub" / "again.txt").symlink_to(tmp_path / "sub" / "seen.txt")
    (tmp_path / "nowhere.txt").symlink_to(tmp_path / "gone.txt")
    (tmp_path / "itself.txt").symlink_to(tmp_path / "itself.txt")
    assert list(read(tmp_path).values()) == ["sub/seen.txt"]


def test_links_to_files_and_folders_elsewhere_are_followed(tmp_path: Path) -> None:
    for name in ("far/a.txt", "b.txt", "corpus/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "corpus" / "far").symlink_to(tmp_path / "far")
    (tmp_path / "corpus" / "b.txt").symlink_to(tmp_path / "b.txt")
    assert list(read(tmp_path / "corpus")) == ["b.txt", "c.txt", "far/a.txt"]


def test_blank_files_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(" \n\t")
    (tmp_path / "b.txt").touch()
    (tmp_path / "c.txt").write_text("x")
    assert list(read(tmp_path)) == ["c.txt"]


def test_marks_and_line_ends_are_normalised(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\n")
    assert read(tmp_path / "a.txt") == {"a.txt": "one\ntwo\n"}


def test_pythons_own_library_is_a_source() -> None:
    count = 0
    for document in documents("python"):
        parts = document.name.split("/")
        assert not {"test", "tests", "idlelib", "site-packages", "__pycache__"} & set(parts[:-1])
        assert document.name.endswith(".py")
        count += 1
    assert count > 400
    assert 5_000_000 < (total_bytes("python") or 0) < 50_000_000


def test_a_folder_called_python_is_read_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "a.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    assert list(read("./python")) == ["a.txt"]


def test_a_name_that_is_not_utf8_can_be_printed(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"a\xff.txt")).write_text("text")
    assert list(read(tmp_path)) == ["a\\xff.txt"]


def test_the_home_folder_may_be_written_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("text")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert list(read("~/a.txt")) == ["a.txt"]


def test_corpora_and_runs_among_the_text_are_left_out(tmp_path: Path) -> None:
    for own in ("corpus/corpus.json", "run/plan.json", "run/config.yaml"):
        (tmp_path / own).parent.mkdir(exist_ok=True)
        (tmp_path / own).touch()
    for name in ("corpus/train/names.jsonl", "run/metrics.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('"a.txt"\n')
    (tmp_path / "a.txt").write_text("text")
    assert list(read(tmp_path)) == ["a.txt"]
    with pytest.raises(DataError, match="is a corpus or a run, not text"):
        read(tmp_path / "corpus")


@pytest.mark.parametrize("kind", [pyarrow.large_string(), pyarrow.string_view()])
def test_every_column_of_strings_is_text(tmp_path: Path, kind: pyarrow.DataType) -> None:
    texts = pyarrow.array(["one", "two"])
    for name, column in (("a", texts.cast(kind)), ("b", texts.dictionary_encode())):
        pyarrow.parquet.write_table(pyarrow.table({"text": column}), tmp_path / f"{name}.parquet")
    assert list(read(tmp_path).values()) == ["one", "two"] * 2


def test_sizes_are_told_before_where_they_are_known(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("12345")
    assert total_bytes(tmp_path) == 5
    (tmp_path / "b.jsonl").write_text(ROWS)
    assert total_bytes(tmp_path) is None


@given(parts=st.lists(st.text(alphabet="ab\né漢\N{ROCKET}"), max_size=8), largest=st.integers(4, 40))
def test_pieces_are_small_whole_and_end_lines(parts: list[str], largest: int) -> None:
    found = list(numbered(iter(parts), largest_bytes=largest))
    texts = [text for _, text in found]
    assert "".join(texts) == "".join(parts)
    assert all(len(text.encode()) <= largest for text in texts)
    assert all(text.endswith("\n") or "\n" not in text for text in texts[:-1])
    assert [name for name, _ in found] == ([""] if len(found) == 1 else [f"#{i + 1}" for i in range(len(found))])


def test_a_long_file_comes_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("first line\nsecond line\nthird")
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "x" * 25}))
    assert read(tmp_path, largest_bytes=20) == {
        "a.txt#1": "first line\n",
        "a.txt#2": "second line\nthird",
        "b.jsonl:1#1": "x" * 20,
        "b.jsonl:1#2": "x" * 5,
    }


def test_a_line_without_end_is_read_in_bounded_memory(tmp_path: Path) -> None:
    size, largest = 24 << 20, 1 << 20
    packed = zstandard.ZstdCompressor().compress(b"\xc3\xa9" * (size // 2))
    (tmp_path / "a.txt.zst").write_bytes(packed)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"x" * size, 1))
    tracemalloc.start()
    try:
        total = sum(len(document.text.encode()) for document in documents(tmp_path, largest_bytes=largest))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 2 * size
    assert peak < 16 * largest
