"""A folder's checksums, in a file that the program ``sha256sum -c MANIFEST.sha256`` reads too.

    # 1024 bytes
    9f86d081884c7d65...  model.safetensors

The sizes stand in comments, so that a file that was cut short is found without reading the others.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from groundup.errors import CheckpointError, writing

MANIFEST = "MANIFEST.sha256"

_ENTRY = re.compile(r"# (\d+) bytes\n([0-9a-f]{64})  ([^\n]+)\n")


@dataclass(frozen=True)
class _Entry:
    name: str
    size_bytes: int
    sha256: str


def write_manifest(folder: Path) -> None:
    """Writes the checksums of all files in a folder and below it.

    Raises:
        StorageError: the folder cannot be written.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    lines = [
        f"# {path.stat().st_size} bytes\n{_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files
    ]
    with writing(folder):
        (folder / MANIFEST).write_text("".join(lines), encoding="utf-8")


def verify(folder: Path, *, only: Collection[str] | None = None) -> None:
    """Checks the files of a folder against its checksums; files that the manifest does not name are free.

    Args:
        folder: a folder with a manifest.
        only: the files to check, by their paths in the folder; None means all that the manifest names.

    Raises:
        CheckpointError: a file is missing, cut short or changed, or the manifest is.
    """
    entries = {entry.name: entry for entry in _entries(folder)}
    for name in only or ():
        if name not in entries:
            raise CheckpointError(f"{folder / name} is not in the checkpoint's {MANIFEST}; {_REPAIR}")
    chosen = [entry for entry in entries.values() if only is None or entry.name in only]
    for entry in chosen:
        _check_size(folder / entry.name, entry)
    for entry in chosen:
        if _sha256(folder / entry.name) != entry.sha256:
            raise CheckpointError(f"{folder / entry.name} has changed since it was written; {_REPAIR}")


_REPAIR = "copy the checkpoint again, or use an earlier one"


def _entries(folder: Path) -> Iterator[_Entry]:
    path = folder / MANIFEST
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise CheckpointError(f"{path} cannot be read: {fault}; {_REPAIR}") from fault
    found = list(_ENTRY.finditer(text))
    if not found or sum(len(match[0]) for match in found) != len(text):
        raise CheckpointError(f"{path} is not a list of checksums; {_REPAIR}")
    for match in found:
        inside = Path(match[3])
        if inside.is_absolute() or ".." in inside.parts:
            raise CheckpointError(f"{path} names {match[3]!r}, which lies outside the checkpoint; do not use it")
        yield _Entry(name=match[3], size_bytes=int(match[1]), sha256=match[2])


def _check_size(path: Path, entry: _Entry) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; {_REPAIR}")
    size = path.stat().st_size
    if size != entry.size_bytes:
        raise CheckpointError(f"{path} has {size} bytes where {entry.size_bytes} were written; {_REPAIR}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
