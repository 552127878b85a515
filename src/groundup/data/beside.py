"""A folder that is complete or absent: written beside its place, then renamed.

Unlike `files.replacing` it replaces nothing, and a second process that would do the same long work is told so at once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from groundup.errors import DataError, writing
from groundup.files import alone, as_path, flush, flush_all


@contextmanager
def written_beside(folder: str | Path) -> Iterator[Path]:
    """Gives an empty folder ``.NAME.building`` to write in, which becomes ``folder`` when all went well.

    What a killed process left there is removed by the next one; a living process holds a lock on it.

    Raises:
        DataError: there is something at ``folder`` already.
        StorageError: the place cannot be written, or another process writes it now.
    """
    folder = Path(os.path.realpath(as_path(folder)))
    with writing(folder):
        if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
            raise DataError(f"{folder} exists already; choose another folder, or remove it first")
        building = folder.with_name(f".{folder.name}.building")
        building.mkdir(parents=True, exist_ok=True)
        with alone(building):
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


def _clear(building: Path) -> None:
    for entry in os.scandir(building):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry)
        else:
            os.unlink(entry)
