"""Reading one file of any kind as texts, in bounded memory.

A file is read in blocks, so a text of any size passes through: one larger than ``largest_bytes`` comes in pieces,
cut at a line end where there is one, else between two characters.
"""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from groundup.data.files import LINES, TABLES, form, reading
from groundup.errors import DataError, MissingExtra, nearest

Json = Any  # what json.loads returns

BLOCK_BYTES = 1 << 20
LONGEST_LINE_BYTES = 64 << 20  # of JSON, which is parsed whole
FIELDS = ("text", "content", "document", "body", "code", "story")
STRINGS = ("string", "large_string", "string_view")
WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)  # that of UTF-32 LE begins like UTF-16's


def texts(path: Path, *, field: str | None, largest_bytes: int) -> Iterator[tuple[str, str]]:
    """Yields the texts of a file, each with the end of its name: "" if it is alone, else ":row" and "#piece".

    Raises:
        DataError: the file cannot be read as what its suffix says.
        MissingExtra: a package that reads it is not installed.
    """
    kind = form(path)[0]
    if kind not in LINES | TABLES:
        yield from numbered(_characters(path), largest_bytes=largest_bytes)
        return
    for row, (text,) in _rows(path, (field,)):
        for ending, piece in numbered(iter([text]), largest_bytes=largest_bytes):
            yield f":{row}{ending}", piece


def pairs(path: Path, *, fields: tuple[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yields the pairs of a table, each with the end of its name, ":row": a source and its target.

    Raises:
        DataError: the file is no table, or cannot be read as what its suffix says.
        MissingExtra: a package that reads it is not installed.
    """
    if form(path)[0] not in LINES | TABLES:
        raise DataError(f"{path} has no fields, so no pairs; expected .jsonl, .tsv or .parquet")
    for row, (source, target) in _rows(path, fields):
        yield f":{row}", source, target


def _rows(path: Path, fields: Sequence[str | None]) -> Iterator[tuple[int, list[str]]]:
    """Yields the number of each row of a table and its fields; one that is not named is the usual one of texts."""
    kind = form(path)[0]
    if kind in TABLES:
        return _table_rows(path, fields)
    return _json_rows(path, fields) if kind == ".jsonl" else _tsv_rows(path, fields)


def numbered(characters: Iterator[str], *, largest_bytes: int) -> Iterator[tuple[str, str]]:
    """Yields a text that comes in parts as pieces of at most ``largest_bytes``, named "#1", "#2", ... if several."""
    count = 0
    waiting = ""
    for part in characters:
        waiting += part
        while len(waiting) > largest_bytes or len(waiting.encode()) > largest_bytes:
            piece = _head(waiting, largest_bytes)
            waiting = waiting[len(piece) :]
            count += 1
            yield f"#{count}", piece
    yield (f"#{count + 1}" if count else ""), waiting


def _head(text: str, largest_bytes: int) -> str:
    """The longest beginning that is small enough and ends a line, or if there is no line end, a character."""
    head = text[:largest_bytes].encode()[:largest_bytes].decode(errors="ignore") or text[0]
    line_end = head.rfind("\n")
    return head[: line_end + 1] if line_end >= 0 else head


def _blocks(path: Path) -> Iterator[bytes]:
    """The bytes of a file that may be UTF-8, unpacked."""
    blocks = _unpacked(path)
    first = next(blocks, b"")
    if first.startswith(WIDE_MARKS):
        wide = "utf-32" if b"\0\0" in first[:4] else "utf-16"
        raise DataError(f"{path} is {wide.upper()}; expected UTF-8; convert it, as in: iconv -f {wide} -t utf-8")
    yield first
    yield from blocks


def _unpacked(path: Path) -> Iterator[bytes]:
    packing = form(path)[1]
    with _reading(path):
        if packing == ".zst":
            yield from _zst_blocks(path)
            return
        with gzip.open(path) if packing == ".gz" else path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                yield block


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    with reading(path):
        try:
            yield
        except (EOFError, gzip.BadGzipFile, zlib.error) as fault:
            raise DataError(f"{path} is cut or damaged gzip ({fault}); fetch or pack it again") from fault


def _zst_blocks(path: Path) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError as fault:
        raise MissingExtra("zstandard", purpose=f"reading {path}", extra="zstd") from fault
    # Small bites, because four bytes may unpack to 128 KiB, and only this interface tells whether a frame is whole.
    bite_bytes = 256
    frame = None
    with path.open("rb") as file:
        try:
            while bite := file.read(bite_bytes):
                while bite:
                    frame = frame or zstandard.ZstdDecompressor().decompressobj()
                    unpacked = frame.decompress(bite)
                    for start in range(0, len(unpacked), BLOCK_BYTES):
                        yield unpacked[start : start + BLOCK_BYTES]
                    bite = frame.unused_data if frame.eof else b""
                    frame = None if frame.eof else frame
        except zstandard.ZstdError as fault:
            raise DataError(f"{path} is damaged zstd ({fault}); fetch or pack it again") from fault
    if frame is not None:
        raise DataError(f"{path} is cut off in the middle; fetch or pack it again")


def _characters(path: Path) -> Iterator[str]:
    """The text of a file, block by block."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    done_bytes = 0

    def decode(block: bytes, final: bool) -> str:
        waiting_bytes = len(decoder.getstate()[0])
        try:
            return decoder.decode(block, final)
        except UnicodeDecodeError as fault:
            raise _not_utf8(path, done_bytes - waiting_bytes + fault.start) from fault

    for block in _blocks(path):
        if (nul := block.find(b"\0")) >= 0:
            raise DataError(
                f"{path} is a binary file, or UTF-16 (a NUL at byte {done_bytes + nul}); expected text in UTF-8"
            )
        yield decode(block, False)
        done_bytes += len(block)
    yield decode(b"", True)


def _not_utf8(path: Path, place: int) -> DataError:
    return DataError(f"{path} is not UTF-8 at byte {place}; convert it, as in: iconv -f latin1 -t utf-8")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file with their numbers, from 1."""
    number, waiting = 1, bytearray()
    for block in _blocks(path):
        *ended, rest = block.split(b"\n")
        for line in ended:
            yield number, bytes(waiting) + line
            waiting.clear()
            number += 1
        waiting += rest
        if len(waiting) > LONGEST_LINE_BYTES:
            raise DataError(
                f"{path} line {number} is longer than {LONGEST_LINE_BYTES >> 20} MiB; expected one JSON object a line"
            )
    yield number, bytes(waiting)


def _tsv_rows(path: Path, fields: Sequence[str | None]) -> Iterator[tuple[int, list[str]]]:
    """The first line names the fields; nothing is quoted."""
    places: list[int] = []
    count = 0
    for number, line in _lines(path):
        try:
            values = line.removeprefix(codecs.BOM_UTF8).decode("utf-8").rstrip("\r").split("\t")
        except UnicodeDecodeError as fault:
            raise DataError(f"{path} line {number} is not UTF-8 at its byte {fault.start}; convert it") from fault
        if not places:
            places, count = (
                [values.index(choose_field(field, values, where=str(path))) for field in fields],
                len(values),
            )
        elif len(values) == count:
            yield number, [values[place] for place in places]
        elif values != [""]:
            raise DataError(
                f"{path} line {number} is not of {count} fields, as the first is, but of {len(values)}; mend it"
            )


def _json_rows(path: Path, fields: Sequence[str | None]) -> Iterator[tuple[int, list[str]]]:
    for number, line in _lines(path):
        line = line.removeprefix(codecs.BOM_UTF8).strip()
        if not line:
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as fault:
            raise DataError(f"{path} line {number} is not UTF-8 at its byte {fault.start}; convert it") from fault
        except (ValueError, RecursionError) as fault:  # ValueError: also a number of too many digits
            raise DataError(f"{path} line {number} is not JSON ({fault}); expected one JSON object a line") from fault
        if not isinstance(row, dict):
            raise DataError(f"{path} line {number} is a {type(row).__name__}; expected a JSON object with a text field")
        where = f"{path} line {number}"
        chosen = [choose_field(field, list(row), where=where) for field in fields]
        texts = [row[name] for name in chosen]
        for name, text in zip(chosen, texts, strict=True):
            if not isinstance(text, str | None):
                raise DataError(f"{where}: the field {name!r} holds no text but {str(text)[:40]}; name a field of text")
        yield number, [_without_surrogates(text or "", where=where) for text in texts]


def _without_surrogates(text: str, *, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as fault:
        raise DataError(f"{where} has half a surrogate pair at character {fault.start}; repair the text") from fault
    return text


def _table_rows(path: Path, fields: Sequence[str | None]) -> Iterator[tuple[int, list[str]]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as fault:
        raise MissingExtra("pyarrow", purpose=f"reading {path}", extra="parquet") from fault
    number = 0
    try:
        with _reading(path), pyarrow.parquet.ParquetFile(path) as file:
            columns = [choose_field(field, file.schema_arrow.names, where=str(path)) for field in fields]
            for column in columns:
                if file.schema_arrow.names.count(column) > 1:
                    raise DataError(f"{path} has several columns {column!r}; name another, or write it with one")
                kind = file.schema_arrow.field(column).type
                if str(kind.value_type if pyarrow.types.is_dictionary(kind) else kind) not in STRINGS:
                    raise DataError(f"{path}: the column {column!r} holds {kind}; name a column of text")
            for rows in file.iter_batches(batch_size=64, columns=columns, use_threads=False):
                for values in zip(*(rows.column(column) for column in columns), strict=True):
                    number += 1
                    yield number, [value.as_py() or "" for value in values]
    except UnicodeDecodeError as fault:
        raise DataError(f"{path} row {number} is not UTF-8 at its byte {fault.start}; write it again") from fault
    except pyarrow.ArrowException as fault:
        reason = str(fault).splitlines()[0]
        raise DataError(f"{path} is no whole parquet file ({reason}); fetch or write it again") from fault


def choose_field(field: str | None, names: list[str], *, where: str) -> str:
    """Returns the field that holds the text: the given one, or the first of the usual names.

    Raises:
        DataError: there is no such field.
    """
    wanted = [field] if field else FIELDS
    chosen = next((name for name in wanted if name in names), None)
    if chosen is None:
        hint = nearest(wanted[0], names) or f"its fields are {', '.join(names[:8]) or 'none'}"
        how = "name one with data.field or --field, that of targets with data.target"
        raise DataError(f"{where} has no field {wanted[0]!r}; {hint}; {how}")
    return chosen
