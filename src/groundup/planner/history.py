"""All runs on this machine: a line each in the user's cache folder, which every run adds when it ends.

    {"run": "/home/me/runs/a", "time": "2026-01-31T12:00:00+00:00", "machine": "3f2a...", "params": 5e6,
     "predicted": {"peak_bytes": ...}, "measured": {"peak_bytes": ...}, "correction": {...}, "spread": 1.02,
     "others": 0.01}

A line is written at once to the end of the file, so that runs that end together do not mix theirs, and a run never
fails because of it. The folder of a run may be gone; its figures stay.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from groundup.files import json_lines
from groundup.planner import cache_files
from groundup.planner.audit import Entry, number
from groundup.planner.machine import Machine


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a run left behind.

    Attributes:
        run: its folder.
        time: when it ended, in UTC, as ISO 8601 has it.
        machine: `key` of the machine.
        params: of the model.
        predicted: figures by quantity.
        measured: figures by quantity.
        correction: by what its plan was corrected, see `groundup.planner.refit.Correction`.
        spread: the median time of a step over that of the fastest tenth; None where nobody knows.
        others: the share of the processor that other processes took meanwhile; None where nobody knows.
    """

    run: str
    time: str
    machine: str
    params: float | None = None
    predicted: Mapping[str, float] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)
    correction: Mapping[str, float] = field(default_factory=dict)
    spread: float | None = None
    others: float | None = None

    def error(self, quantity: str) -> float | None:
        """Returns how far the plan was off, as a share of what was measured; None where one of them is not known."""
        predicted, measured = self.predicted.get(quantity), self.measured.get(quantity)
        return Entry(quantity=quantity, unit="", predicted=predicted, measured=measured).error


def file() -> Path:
    """Returns where the lines are."""
    return cache_files.folder() / "runs.jsonl"


def key(machine: Machine) -> str:
    """Returns what runs are told apart by: the processor, the threads and the version of PyTorch."""
    about = [machine.processor, machine.device, machine.cores, machine.torch]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]


def remember(
    run: Path,
    found: Iterable[Entry],
    *,
    machine: Machine,
    params: float,
    correction: Mapping[str, float],
    spread: float | None,
    others: float | None,
) -> None:
    """Adds a run; where that cannot be done it is not there, and nothing else is lost."""
    figures = list(found)
    line = {
        "run": str(run.absolute()),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": key(machine),
        "params": params,
        "predicted": {e.quantity: e.predicted for e in figures if e.predicted is not None},
        "measured": {e.quantity: e.measured for e in figures if e.measured is not None},
        "correction": dict(correction),
        "spread": spread,
        "others": others,
    }
    with suppress(OSError, RuntimeError):  # RuntimeError: no home
        _append(file(), json.dumps(line))


def read() -> list[Record]:
    """Returns all runs in the order in which they ended, each folder's newest; damaged lines are left out."""
    try:
        lines = json_lines(file())
    except RuntimeError:
        return []
    by_run: dict[str, Record] = {}
    for line in lines:
        if all(isinstance(line.get(name), str) for name in ("run", "time", "machine")):
            by_run.pop(line["run"], None)
            by_run[line["run"]] = Record(
                run=line["run"],
                time=line["time"],
                machine=line["machine"],
                params=number(line.get("params")),
                predicted=_figures(line.get("predicted")),
                measured=_figures(line.get("measured")),
                correction=_figures(line.get("correction")),
                spread=number(line.get("spread")),
                others=number(line.get("others")),
            )
    return list(by_run.values())


def _append(path: Path, text: str) -> None:
    """Adds a line by one write; it begins anew, in case a process died within the line before it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, f"\n{text}\n".encode())
    finally:
        os.close(handle)


def _figures(data: Any) -> dict[str, float]:
    if not isinstance(data, dict):
        return {}
    return {name: figure for name, value in data.items() if (figure := number(value)) is not None}
