"""The list of a folder's files with their sizes and hashes, and the comparison of a folder with its list.

    # 10485992 model.safetensors
    9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08  model.safetensors

`sha256sum -c MANIFEST.sha256` reads it too: lines that start with # are comments to it.
"""

from __future__ import annotations

import re
from pathlib import Path

from groundup.errors import CheckpointError
from groundup.training import files

MANIFEST = "MANIFEST.sha256"
ENTRY = re.compile(r"# (?P<size>\d+) (?P<name>.+)\n(?P<hash>[0-9a-f]{64})  (?P=name)\n")


def write_manifest(folder: Path) -> None:
    """Writes the manifest of all files below ``folder``."""
    entries = [
        f"# {path.stat().st_size} {name}\n{files.sha256(path)}  {name}\n" for name, path in _files(folder).items()
    ]
    (folder / MANIFEST).write_text("".join(entries), encoding="utf-8")


def verify(folder: Path) -> None:
    """Compares every file below ``folder`` with the manifest: names, then sizes, then hashes.

    Raises:
        CheckpointError: the first file that is missing, foreign, a pickle, cut or changed.
    """
    expected, found = _read(folder), _files(folder)
    for name in expected:
        if name not in found:
            raise CheckpointError(f"{folder / name} is missing")
    for name, path in found.items():
        if name not in expected:
            raise CheckpointError(f"{path} is not in the checkpoint's {MANIFEST}; if it was added, take it out")
        if path.suffix == ".safetensors" and _is_pickle(path):
            raise CheckpointError(f"{path} is a pickle; groundup never reads pickles, because they can run code")
        if path.stat().st_size != expected[name][0]:
            raise CheckpointError(f"{path} has {path.stat().st_size:,} bytes and was saved with {expected[name][0]:,}")
    for name, path in found.items():
        if files.sha256(path) != expected[name][1]:
            raise CheckpointError(f"{path} has changed since it was saved: its SHA-256 is another one")


def _read(folder: Path) -> dict[str, tuple[int, str]]:
    """Returns the size and hash of each file by its name."""
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointError(f"{folder} has no {MANIFEST}" if folder.is_dir() else f"there is no checkpoint {folder}")
    text = path.read_text(encoding="utf-8", errors="replace")
    entries = list(ENTRY.finditer(text))
    if not entries or "".join(entry[0] for entry in entries) != text:
        raise CheckpointError(f"{path} has changed since it was saved: it has lines that are no manifest's")
    return {entry["name"]: (int(entry["size"]), entry["hash"]) for entry in entries}


def _files(folder: Path) -> dict[str, Path]:
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if not path.is_dir()}
    return {name: path for name, path in found.items() if name != MANIFEST}


def _is_pickle(path: Path) -> bool:
    """Returns whether the bytes are those of torch.save or pickle: not a header's brace, but their magic numbers."""
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] != b"{" and head.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"))
