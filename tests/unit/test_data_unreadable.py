"""What cannot be read is told in one sentence that names the file and the place in it."""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from groundup.data.sources import documents
from groundup.errors import DataError, MissingExtra


def read(source: str | Path, **options: Any) -> dict[str, str]:
    """The documents by name; a name that comes twice is an error."""
    found = [(document.name, document.text) for document in documents(source, **options)]
    assert len(dict(found)) == len(found)
    return dict(found)


def table(path: Path, **columns: list[object]) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_a_missing_path_names_what_is_near(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    with pytest.raises(DataError, match=r"corpsu does not exist; did you mean 'corpus'\?"):
        read(tmp_path / "corpsu")
    with pytest.raises(DataError, match=r"x.txt does not exist; expected \.txt"):
        read(tmp_path / "no" / "where" / "x.txt")


def test_a_missing_path_that_looks_like_a_dataset_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="data/corpus does not exist"):
        read("data/corpus")


@pytest.mark.parametrize("source", ["", "a/b/c", "a.txt/b", "circle", "circle/a", "a" * 300, "~nobody-here/a"])
def test_a_name_that_leads_nowhere_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "circle").symlink_to("circle")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"is an empty name|does not exist|cannot be read: (File name|Too many)"):
        read(source)


def test_what_belongs_to_another_user_is_one_sentence(tmp_path: Path, another_user: None) -> None:
    for place in (tmp_path / "closed", tmp_path / "closed" / "a.txt"):
        with pytest.raises(DataError, match=rf"{place} cannot be read: Permission denied; check"):
            read(place)


@pytest.mark.parametrize("content", [b"", b" \n\t\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n"])
def test_a_blank_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.txt does not hold anything but whitespace"):
        read(tmp_path / "a.txt")


def test_a_folder_without_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is an empty folder"):
        read(tmp_path)
    (tmp_path / "a.png").touch()
    with pytest.raises(DataError, match=r"holds no file that can be read \(1 of \.png\)"):
        read(tmp_path)
    (tmp_path / "a.txt").touch()
    (tmp_path / "b.txt").write_text("\n")
    with pytest.raises(DataError, match=r"none of the 2 files of .* holds anything but whitespace"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["a.pdf", "a", "a.tar.gz", "a.parquet.gz"])
def test_a_kind_that_is_not_read_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("text")
    with pytest.raises(DataError, match=rf"{name} is of a kind that is not read; expected \.txt, \.md"):
        read(tmp_path / name)


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"ELF\0\0")
    with pytest.raises(DataError, match=r"a\.txt is a binary file, or UTF-16 \(a NUL at byte 3\)"):
        read(tmp_path / "a.txt")
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "a\0"}))
    with pytest.raises(DataError, match=r"b\.jsonl:1: there is a NUL at character 1"):
        read(tmp_path / "b.jsonl")


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.txt.gz"])
@pytest.mark.parametrize(("encoding", "told"), [("utf-16", "UTF-16"), ("utf-32", "UTF-32")])
def test_wide_text_is_told_with_what_converts_it(tmp_path: Path, name: str, encoding: str, told: str) -> None:
    content = '{"text": "naïve 漢字"}'.encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(DataError, match=rf"{name} is {told}; expected UTF-8; convert it, as in: iconv -f {encoding} "):
        read(tmp_path / name)


@pytest.mark.parametrize("place", [0, 7, (1 << 20) - 1, (1 << 20) + 3])
def test_the_byte_that_is_not_utf8_is_named(tmp_path: Path, place: int) -> None:
    content = bytearray("é".encode() * ((1 << 19) + 8))
    content = content[: place - place % 2] + b"a" * (place % 2) + b"\xff" + b"tail"
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.txt is not UTF-8 at byte {place};"):
        read(tmp_path / "a.txt")


@pytest.mark.parametrize("prefix", [b"", b"x" * ((1 << 20) - 2)])
def test_a_character_cut_off_at_the_end_is_not_utf8(tmp_path: Path, prefix: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(prefix + "漢".encode()[:2])
    with pytest.raises(DataError, match=rf"is not UTF-8 at byte {len(prefix)};"):
        read(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("name", "pack", "message"),
    [("a.txt.gz", gzip.compress, "cut or damaged gzip"), ("a.txt.zst", zstandard.compress, "cut off in the middle")],
)
def test_a_packed_file_that_was_cut_is_refused(
    tmp_path: Path, name: str, pack: Callable[[bytes], bytes], message: str
) -> None:
    whole = pack(os.urandom(1000).hex().encode())
    for length in (len(whole) - 1, len(whole) // 2, 8):
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(DataError, match=message):
            read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.zst", "a.parquet"])
def test_a_file_of_another_kind_than_its_name_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"this is plain text, no matter what its name says")
    with pytest.raises(DataError, match=f"{name} is .*(damaged|no whole parquet)|{name} cannot be read"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": ', "line 2 is not JSON"),
        ("[" * 100_000, "line 2 is not JSON"),
        ('["text"]', "line 2 is a list; expected a JSON object"),
        ('{"title": "x", "txt": "y"}', "line 2 has no field 'text'; did you mean 'txt'"),
        ('{"a": "x"}', "line 2 has no field 'text'; its fields are a;"),
        ('{"text": ["x"]}', r"line 2: the field 'text' holds no text but \['x'\]"),
        ('{"text": "\\ud800"}', "line 2 has half a surrogate pair at character 0"),
    ],
)
def test_a_broken_json_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n' + line)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.jsonl")


def test_a_json_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n{"text": "\xff"}')
    with pytest.raises(DataError, match="line 2 is not UTF-8 at its byte 10"):
        read(tmp_path / "a.jsonl")


def test_a_table_without_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.parquet has no field 'text'; its fields are id"):
        read(table(tmp_path / "a.parquet", id=[1]))
    with pytest.raises(DataError, match="the column 'text' holds int64"):
        read(table(tmp_path / "b.parquet", text=[1]))
    with pytest.raises(DataError, match="the column 'text' holds list<"):
        read(table(tmp_path / "c.parquet", text=[["x"]]))
    with pytest.raises(DataError, match="has no field 'texts'; did you mean 'text'"):
        read(tmp_path / "b.parquet", field="texts")


def test_a_table_that_is_not_utf8_or_names_a_column_twice_is_refused(tmp_path: Path) -> None:
    ends = pyarrow.py_buffer(b"\0\0\0\0\4\0\0\0")
    bad = pyarrow.StringArray.from_buffers(1, ends, pyarrow.py_buffer(b"ab\xff\xfe"))
    with pytest.raises(DataError, match=r"a\.parquet row 1 is not UTF-8 at its byte 2"):
        read(table(tmp_path / "a.parquet", text=bad))
    twice = pyarrow.table([pyarrow.array(["x"])] * 2, names=["text", "text"])
    pyarrow.parquet.write_table(twice, tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet has several columns 'text'"):
        read(tmp_path / "b.parquet")


def test_a_damaged_table_is_one_line(tmp_path: Path) -> None:
    content = bytearray(table(tmp_path / "a.parquet", text=["some text"] * 9).read_bytes())
    for start in range(4, len(content) - 8, 40):
        damaged = bytes(content[:start]) + b"\xaa" * 40 + bytes(content[start + 40 :])
        (tmp_path / "a.parquet").write_bytes(damaged[: len(content)])
        try:
            read(tmp_path / "a.parquet")
        except DataError as fault:
            assert "\n" not in str(fault)


@pytest.mark.parametrize(
    ("package", "name", "extra"), [("pyarrow", "a.parquet", "parquet"), ("zstandard", "a.txt.zst", "zstd")]
)
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, name: str, extra: str
) -> None:
    (tmp_path / name).write_bytes(b"x")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"reading .*{name} needs the package {package}: pip install .*\[{extra}\]"):
        read(tmp_path / name)


def test_a_piece_must_hold_a_character(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="largest_bytes=3 cannot hold every character"):
        read(tmp_path, largest_bytes=3)
