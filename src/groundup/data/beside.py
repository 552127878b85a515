"""A folder that is complete or absent: written beside its place, then renamed.

Unlike `files.replacing` it replaces nothing, and a second process that would do the same long work is told so at once.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from groundup.errors import DataError, writing
from groundup.files import flush, flush_all

_LOCK = ".lock"


@contextmanager
def written_beside(folder: str | Path) -> Iterator[Path]:
    """Gives an empty folder ``.NAME.building`` to write in, which becomes ``folder`` when all went well.

    What a killed process left there is removed by the next one; a living process holds a lock on it.

    Raises:
        DataError: there is something at ``folder`` already, or another process writes it now.
        StorageError: the place cannot be written.
    """
    folder = Path(os.path.realpath(folder))
    with writing(folder):
        if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
            raise DataError(f"{folder} exists already; choose another folder, or remove it first")
        building = folder.with_name(f".{folder.name}.building")
        building.mkdir(parents=True, exist_ok=True)
        with (building / _LOCK).open("wb") as lock:
            if not _locked(lock.fileno()):
                raise DataError(f"another process writes {folder} now; wait for it, or choose another folder")
            try:
                _clear(building)
                yield building
                flush_all(building)
                if folder.exists():
                    folder.rmdir()
                building.rename(folder)
                flush(folder.parent)
            except BaseException:
                shutil.rmtree(building, ignore_errors=True)
                raise
            (folder / _LOCK).unlink()


def _locked(file: int) -> bool:
    """Takes the lock that the system gives back when this process ends, however it ends."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _clear(building: Path) -> None:
    for entry in os.scandir(building):
        if entry.name == _LOCK:
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry)
        else:
            os.unlink(entry)
