"""What the runs of this machine say of the planner's two measured constants, and plans that are corrected by it.

    time      median over runs of  measured / predicted time of a step
    slack     median over runs of  (measured peak - what is planned without the allocator's waste) / planned waste

Both are held against what was planned before any correction, so that a correction is not learnt twice. Only runs count
that were made with the same processor, threads and PyTorch, and of their times only those that were quiet and long
enough: a step that takes a few milliseconds is mostly what Python does around the operations.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

from groundup.planner import cache_files, history, units
from groundup.planner.audit import number
from groundup.planner.history import Record
from groundup.planner.machine import Machine
from groundup.planner.memory import Memory

LEAST, MOST = 0.5, 2.0  # beyond these a constant is not off, but something else
LEAST_RUNS = 3
RECENT = 20  # runs that are looked at
QUIET = 1.25  # the median time of a step over the fastest tenth's, from which on something disturbed the run
LONG_SECONDS = 0.03  # of a step


@dataclass(frozen=True, kw_only=True)
class Correction:
    """By what a plan for a machine is multiplied.

    Attributes:
        seconds: the time of a step.
        slack: what the allocator wastes.
        seconds_runs: how many runs the first is from; 0 where it is not from any.
        slack_runs: the same of the second.
    """

    seconds: float = 1.0
    slack: float = 1.0
    seconds_runs: int = 0
    slack_runs: int = 0

    def memory(self, planned: Memory) -> Memory:
        """Returns the planned memory with the waste corrected."""
        return replace(planned, slack_bytes=round(self.slack * planned.slack_bytes))

    def figures(self) -> dict[str, float]:
        """Returns the factors as a plan's file keeps them."""
        return {"seconds": self.seconds, "slack": self.slack}

    def sentences(self) -> tuple[str, ...]:
        """Returns what a plan says of them."""
        said = []
        if self.seconds_runs:
            runs = units.several(self.seconds_runs, "run")
            said.append(f"Step time corrected by {self.seconds:.2f}, from {runs} on this machine.")
        if self.slack_runs:
            runs = units.several(self.slack_runs, "run")
            said.append(f"What the allocator wastes corrected by {self.slack:.2f}, from {runs} on this machine.")
        return tuple(said)


NONE = Correction()


def correction(machine: Machine) -> Correction:
    """Returns by what plans for this machine are corrected: what `refit` last found, nothing where it never did."""
    with suppress(KeyError, ValueError, TypeError, RuntimeError):
        data = cache_files.read(_file(machine))
        known = all(number(data[name]) is not None for name in asdict(NONE))
        if known and all(LEAST <= data[name] <= MOST for name in ("seconds", "slack")):
            return Correction(
                seconds=float(data["seconds"]),
                slack=float(data["slack"]),
                seconds_runs=int(data["seconds_runs"]),
                slack_runs=int(data["slack_runs"]),
            )
    return NONE


def refit(machine: Machine) -> Correction:
    """Returns what the runs of this machine say, and keeps it for the plans to come."""
    found = corrected([run for run in history.read() if run.machine == history.key(machine)])
    with suppress(RuntimeError):
        cache_files.write(_file(machine), asdict(found))
    return found


def corrected(runs: Sequence[Record]) -> Correction:
    """Returns what runs of one machine, in the order of their ends, say of the constants."""
    seconds = [factor for run in runs if (factor := _seconds(run)) is not None][-RECENT:]
    slack = [factor for run in runs if (factor := _slack(run)) is not None][-RECENT:]
    found = NONE
    if len(seconds) >= LEAST_RUNS:
        found = replace(found, seconds=_within(median(seconds)), seconds_runs=len(seconds))
    if len(slack) >= LEAST_RUNS:
        found = replace(found, slack=_within(median(slack)), slack_runs=len(slack))
    return found


def _seconds(run: Record) -> float | None:
    predicted, measured = run.predicted.get("step_seconds"), run.measured.get("step_seconds")
    if not predicted or not measured or measured < LONG_SECONDS or (run.spread or sys.float_info.max) > QUIET:
        return None
    return measured * run.correction.get("seconds", 1.0) / predicted


def _slack(run: Record) -> float | None:
    predicted, measured = run.predicted.get("peak_bytes"), run.measured.get("peak_bytes")
    wasted = run.predicted.get("slack_bytes")
    if not predicted or not measured or not wasted:
        return None
    return (measured - (predicted - wasted)) * run.correction.get("slack", 1.0) / wasted


def _within(factor: float) -> float:
    return min(max(factor, LEAST), MOST)


def _file(machine: Machine) -> Path:
    return cache_files.path("refit", history.key(machine))
