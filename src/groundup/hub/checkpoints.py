"""The checkpoints of a run by their names on disk: which there are, and which one the run goes on from.

    checkpoints/step-000500    one of them
    checkpoints/latest         the name of the one to go on from

What is in them is no matter here: only names are read.
"""

from __future__ import annotations

import os
from pathlib import Path

CHECKPOINTS, LATEST = "checkpoints", "latest"


def name_of(step: int) -> str:
    """Returns the name of the checkpoint of a step."""
    return f"step-{step:06d}"


def step_of(path: Path) -> int:
    """Returns the step of a checkpoint by its name; -1 where the name is not that of one."""
    digits = path.name.removeprefix("step-")
    return int(digits) if digits.isdecimal() else -1


def checkpoints_in(folder: Path) -> list[Path]:
    """Returns the checkpoints in a run's ``checkpoints`` folder, newest step first."""
    found = (path for path in folder.glob("step-*") if os.path.isdir(path) and step_of(path) >= 0)
    return sorted(found, key=step_of, reverse=True)


def latest_of(folder: Path) -> Path | None:
    """Returns the checkpoint that ``latest`` names, or the newest if it names none; None if there is none.

    It names none where a crash came before it was written, and where the checkpoint was removed, as a damaged one is.

    Args:
        folder: a run's ``checkpoints`` folder.
    """
    pointer, found = folder / LATEST, checkpoints_in(folder)
    name = pointer.read_text(encoding="utf-8", errors="replace").strip() if os.path.isfile(pointer) else ""
    return next((path for path in found if path.name == name), next(iter(found), None))
