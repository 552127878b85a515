"""Documents from anywhere: files, folders, Python's own library, a dataset of the Hugging Face hub."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from groundup.data import files, formats
from groundup.data.clean import normalise
from groundup.data.datasets import dataset_files
from groundup.errors import DataError
from groundup.files import as_path

LARGEST_BYTES = 1 << 20  # a tokenizer takes up to 200 bytes of memory for each of them
_DATASET = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, kw_only=True)
class Document:
    """One text and where it is from.

    Attributes:
        name: the path below the source, with ":row" in a table and "#piece" where a text came in pieces.
        text: normalised text, see `clean.normalise`.
        target: the other text of a pair, whose source is ``text``; None where there is no pair.
    """

    name: str
    text: str
    target: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """Its text, or both of its pair."""
        return (self.text,) if self.target is None else (self.text, self.target)


def documents(
    source: str | Path,
    *,
    field: str | None = None,
    target: str | None = None,
    largest_bytes: int = LARGEST_BYTES,
) -> Iterator[Document]:
    """Yields the documents of a source one by one; blank ones are left out.

    Args:
        source: a file or folder of .txt, .md, .py, .rst, .jsonl, .tsv (each also with .gz or .zst) and .parquet;
            ``python`` for the running Python's standard library (``./python`` is a folder of that name); or the id of
            a dataset on the Hugging Face hub, ``org/name``.
        field: which field of .jsonl, .tsv and .parquet holds the text; None takes the first of the usual names.
        target: which field holds the targets of pairs, whose sources are in ``field``; None reads single texts.
        largest_bytes: a longer text comes in pieces of at most that many bytes in UTF-8; pairs stay whole.

    Raises:
        DataError: the source is missing, empty, or holds what cannot be read.
        MissingExtra: a package that reads it is not installed.
    """
    if largest_bytes < 4:
        raise DataError(f"largest_bytes={largest_bytes} cannot hold every character; choose 4 or more")
    count, found = 0, False
    for name, path in _files(source):
        count += 1
        if target is None:
            rows: Iterator[tuple[str, ...]] = formats.texts(path, field=field, largest_bytes=largest_bytes)
        else:
            rows = formats.pairs(path, fields=(field or "source", target))
        for ending, *raw in rows:
            try:
                texts = [normalise(text) for text in raw]
            except DataError as fault:
                raise DataError(f"{path}{ending}: {fault}") from fault
            if all(text.strip() for text in texts):
                found = True
                yield Document(name=name + ending, text=texts[0], target=texts[1] if len(texts) > 1 else None)
    if not found:
        what = f"none of the {count} files of {source} holds" if count > 1 else f"{source} does not hold"
        raise DataError(f"{what} anything but whitespace; give a source with text")


def total_bytes(source: str | Path) -> int | None:
    """Returns how many bytes `documents` will read, for a progress bar; None where that is not known beforehand.

    Raises:
        DataError: the source is missing.
    """
    if _is_dataset(source):
        return None
    paths = [path for _, path in _files(source)]
    plain = all(files.form(path)[0] in files.TEXT and not files.form(path)[1] for path in paths)
    return sum(path.stat().st_size for path in paths) if plain else None


def _files(source: str | Path) -> Iterator[tuple[str, Path]]:
    """Yields the name below the source and the place of each file."""
    if not str(source):
        raise DataError("the source is an empty name; give a file, a folder, python or a dataset id")
    if _is_dataset(source):
        yield from dataset_files(str(source))
        return
    place = as_path(source)
    top, found = files.standard_library() if source == files.PYTHON else (place, files.find(place))
    for path in found:
        name = path.relative_to(top).as_posix() if path != top else path.name
        yield os.fsencode(name).decode(errors="backslashreplace"), path


def _is_dataset(source: str | Path) -> bool:
    """``org/name`` is a dataset, unless there is such a path, or an ``org`` in which it may have been meant."""
    if not (isinstance(source, str) and _DATASET.fullmatch(source)):
        return False
    return not os.path.lexists(source) and not os.path.lexists(os.path.dirname(source))
