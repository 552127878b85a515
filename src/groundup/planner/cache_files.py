"""Results that are dear to compute and cheap to lose: JSON files in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from groundup.files import atomic_write


def folder() -> Path:
    """Returns the folder of the cache: ``$GROUNDUP_CACHE``, ``$XDG_CACHE_HOME/groundup`` or ``~/.cache/groundup``."""
    own, shared = os.environ.get("GROUNDUP_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else Path(shared or Path.home() / ".cache") / "groundup"


def path(kind: str, key: Any) -> Path:
    """Returns the file of a result; ``key`` is all that it depends on, as plain data."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return folder() / f"{kind}-{digest}.json"


def read(file: Path) -> Any:
    """Returns what `write` wrote.

    Raises:
        ValueError: there is no such file, or it is not whole.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as fault:
        raise ValueError(f"{file} cannot be read") from fault


def write(file: Path, data: Any) -> None:
    """Writes a result; where that cannot be done it will be computed again, and nothing else is lost."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, json.dumps(data))
