"""Which files a source means: one file, a folder of them, or the source of Python's standard library."""

from __future__ import annotations

import os
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from groundup.errors import DataError, nearest

TEXT = frozenset({".txt", ".md", ".py", ".rst"})
LINES = frozenset({".jsonl", ".tsv"})
TABLES = frozenset({".parquet"})
PACKED = frozenset({".gz", ".zst"})
EXPECTED = "expected .txt, .md, .py, .rst, .jsonl, .tsv, these with .gz or .zst after it, or .parquet"

PYTHON = "python"
# Tests say little in many lines; idlelib and turtledemo are programs that come along, not the library.
_NOT_THE_LIBRARY = frozenset(
    {"test", "tests", "idle_test", "idlelib", "lib2to3", "turtledemo", "site-packages", "dist-packages", "__pycache__"}
)

_OWN = (frozenset({"corpus.json"}), frozenset({"config.yaml", "plan.json"}))  # in the folder of a corpus, of a run


def form(path: Path) -> tuple[str, str]:
    """Returns the kind of a file and how it is packed, as suffixes: (".jsonl", ".gz"), (".txt", "").

    A packed file that tells no kind, such as ``notes.gz``, is text. A kind that is not read is the empty string.
    """
    suffix = path.suffix.lower()
    packing = suffix if suffix in PACKED else ""
    kind = Path(path.stem).suffix.lower() or ".txt" if packing else suffix
    readable = kind in TEXT | LINES or (kind in TABLES and not packing)
    return (kind if readable else "", packing)


def find(place: Path) -> list[Path]:
    """Returns the file that ``place`` is, or the readable files below it in the order of their names.

    Hidden files and folders are left out, and so are corpora and runs, which may lie among the text. Links are
    followed, but no file or folder is visited twice.

    Raises:
        DataError: nothing there, or nothing that can be read.
    """
    if os.path.isfile(place):
        if not form(place)[0]:
            raise DataError(f"{place} is of a kind that is not read; {EXPECTED}")
        return [place]
    if not os.path.isdir(place):
        raise _missing(place)
    found = list(_walk(place))
    readable = [path for path in found if form(path)[0]]
    if not found:
        what = "a corpus or a run, not text" if _is_own(os.listdir(place)) else "an empty folder"
        raise DataError(f"{place} is {what}; {EXPECTED}")
    if not readable:
        kinds = Counter(path.suffix or "no suffix" for path in found).most_common(3)
        has = ", ".join(f"{count} of {kind}" for kind, count in kinds)
        raise DataError(f"{place} holds no file that can be read ({has}); {EXPECTED}")
    return readable


def standard_library() -> tuple[Path, list[Path]]:
    """Returns the folder of the running Python's standard library and its source files, without its tests.

    Raises:
        DataError: this Python comes without source.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = (
        [path for path in _walk(folder, without=_NOT_THE_LIBRARY) if path.suffix == ".py"] if folder.is_dir() else []
    )
    if not files:
        raise DataError(f"this Python has no source files in {folder}; give a folder of text instead of {PYTHON!r}")
    return folder, files


def _is_own(names: Iterable[str]) -> bool:
    return any(own.issubset(names) for own in _OWN)


def _walk(top: Path, *, without: frozenset[str] = frozenset()) -> Iterator[Path]:
    visited: set[tuple[int, int]] = set()

    def is_new(path: str) -> bool:
        try:
            at = os.stat(path)
        except OSError:
            return False  # a link to nowhere
        fresh = (at.st_dev, at.st_ino) not in visited
        visited.add((at.st_dev, at.st_ino))
        return fresh

    def stop(fault: OSError) -> None:
        raise _unreadable(fault.filename, fault) from fault

    is_new(str(top))
    for folder, folders, names in os.walk(top, followlinks=True, onerror=stop):
        if _is_own(names):
            folders.clear()
            continue
        shown = sorted(name for name in folders if not name.startswith(".") and name not in without)
        folders[:] = [name for name in shown if is_new(os.path.join(folder, name))]
        for name in sorted(names):
            path = os.path.join(folder, name)
            if not name.startswith(".") and is_new(path) and os.path.isfile(path):
                yield Path(path)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns the operating system's refusals to read a file into one sentence.

    Raises:
        DataError: it cannot be read.
    """
    try:
        yield
    except OSError as fault:
        raise _unreadable(path, fault) from fault


def _unreadable(path: str | Path, fault: OSError) -> DataError:
    if fault.errno is None:  # of a library that reads it
        return DataError(f"{path} is damaged ({str(fault).partition(chr(10))[0]}); fetch or write it again")
    return DataError(f"{path} cannot be read: {fault.strerror}; check its name and its permissions")


def _missing(place: Path) -> DataError:
    try:
        place.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        siblings = []
        with suppress(OSError, ValueError):
            siblings = os.listdir(place.parent)
        return DataError(f"{place} does not exist; {nearest(place.name, siblings) or EXPECTED}")
    except OSError as fault:
        return _unreadable(place, fault)
    return DataError(f"{place} is neither a file nor a folder; {EXPECTED}")
