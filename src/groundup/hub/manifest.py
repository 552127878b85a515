"""A folder's files with their sizes and hashes, in a list that ``sha256sum -c MANIFEST.sha256`` reads too.

    # 10485992 model.safetensors
    9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08  model.safetensors

The sizes stand in comments, so that a file that was cut short is found without reading the others. A name stands
twice, so that no changed bit of the list itself goes unnoticed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from groundup.errors import CheckpointError, writing
from groundup.hub.tensors import is_pickle

MANIFEST = "MANIFEST.sha256"

_ENTRY = re.compile(r"# (?P<size>0|[1-9]\d*) (?P<name>.+)\n(?P<hash>[0-9a-f]{64})  (?P=name)\n", re.ASCII)
_REPAIR = "copy the folder again, or use another"


@dataclass(frozen=True)
class _Entry:
    path: Path
    size_bytes: int
    sha256: str


def write_manifest(folder: Path) -> None:
    """Writes the sizes and hashes of all files in a folder and below it.

    Raises:
        StorageError: the folder cannot be written.
    """
    entries = [f"# {path.stat().st_size} {name}\n{_sha256(path)}  {name}\n" for name, path in _files(folder).items()]
    with writing(folder):
        (folder / MANIFEST).write_text("".join(entries), encoding="utf-8", newline="\n")


def verify(folder: Path, *, only: Collection[str] | None = None) -> None:
    """Compares files of a folder with its manifest; files that the manifest does not name are free.

    Args:
        folder: a folder with a manifest.
        only: the files to check, by their paths in the folder; None means all that the manifest names.

    Raises:
        CheckpointError: a file is missing, a pickle, cut or changed, or the manifest is; or it does not name one.
    """
    entries = _read(folder)
    for name in only or ():
        if name not in entries:
            raise CheckpointError(f"{folder / name} is not in the checkpoint's {MANIFEST}; {_REPAIR}")
    _compare(entry for name, entry in entries.items() if only is None or name in only)


def verify_whole(folder: Path) -> None:
    """Compares a folder with its manifest: the files that it names and no other, as they were written.

    Raises:
        CheckpointError: a file is missing, foreign, a pickle, cut or changed, or the manifest is.
    """
    entries = _read(folder)
    for name, path in _files(folder).items():
        if name not in entries:
            raise CheckpointError(f"{path} is not in the checkpoint's {MANIFEST}; if it was added, take it out")
    _compare(entries.values())


def _read(folder: Path) -> dict[str, _Entry]:
    """Returns the entries of a folder's manifest by name."""
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointError(f"{folder} has no {MANIFEST}" if folder.is_dir() else f"there is no checkpoint {folder}")
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise CheckpointError(f"{path} cannot be read: {fault}; {_REPAIR}") from fault
    found = list(_ENTRY.finditer(text))
    if not found or "".join(entry[0] for entry in found) != text:
        raise CheckpointError(f"{path} has changed since it was written: not all of it is a manifest; {_REPAIR}")
    for entry in found:
        inside = Path(entry["name"])
        if inside.is_absolute() or ".." in inside.parts:
            raise CheckpointError(f"{path} names {entry['name']!r}, which lies outside the checkpoint; do not use it")
    return {entry["name"]: _Entry(folder / entry["name"], int(entry["size"]), entry["hash"]) for entry in found}


def _compare(entries: Iterable[_Entry]) -> None:
    """Looks at what costs nothing first: names, then kinds and sizes, then hashes."""
    chosen = list(entries)
    for entry in chosen:
        if not entry.path.is_file():
            raise CheckpointError(f"{entry.path} is missing; {_REPAIR}")
    for entry in chosen:
        size = entry.path.stat().st_size
        if entry.path.suffix == ".safetensors" and is_pickle(entry.path):
            raise CheckpointError(f"{entry.path} is a pickle; groundup never reads pickles, because they can run code")
        if size != entry.size_bytes:
            raise CheckpointError(f"{entry.path} has {size:,} bytes where {entry.size_bytes:,} were written; {_REPAIR}")
    for entry in chosen:
        if _sha256(entry.path) != entry.sha256:
            raise CheckpointError(f"{entry.path} has changed since it was written: its SHA-256 is another; {_REPAIR}")


def _files(folder: Path) -> dict[str, Path]:
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if not path.is_dir()}
    return {name: path for name, path in found.items() if name != MANIFEST}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
