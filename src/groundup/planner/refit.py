"""What the runs of this machine say of the planner's two measured constants, and plans that are corrected by it.

    figure(f) = what the constant has no part in  +  f x what it has        of each run, as it was planned
    f         = argmin  sum over runs of  |figure(f) / measured - 1|

The constants are the time of a step and what the allocator wastes. A minimum of absolute errors is a median, so a few
odd runs move it little, and runs in which the constant has next to no part weigh as little. A factor corrects plans
only if it holds for runs that it was not made from: with each run left out in turn, the errors of the ones left out
must together be smaller by a tenth than they were.

Runs are held against what was planned before any correction, so that a correction is not learnt twice. Only those count
that were made with the same processor, threads and PyTorch, and of their times only those that were quiet and long
enough: a step that takes a few milliseconds is mostly what Python does around the operations.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from groundup.planner import cache_files, history, units
from groundup.planner.audit import number
from groundup.planner.history import Record
from groundup.planner.machine import Machine
from groundup.planner.memory import Memory

LEAST, MOST = 0.5, 2.0  # beyond these it is not the constant that is off
LEAST_RUNS = 3
HELPING = 0.9  # of the errors, below which those of runs left out must fall
RECENT = 20  # runs that are looked at
QUIET = 1.25  # the median time of a step over the fastest tenth's, from which on something disturbed the run
MOST_OTHERS = 0.1  # of the processor, that other processes took
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


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of a run, planned and measured.

    Attributes:
        fixed: what was planned of it that the constant has no part in.
        part: the rest, uncorrected.
        measured: in the run.
    """

    fixed: float
    part: float
    measured: float

    def error(self, factor: float) -> float:
        """Returns by which share of what was measured the plan is off, with a factor on the constant."""
        return abs((self.fixed + factor * self.part) / self.measured - 1)


def corrected(runs: Sequence[Record]) -> Correction:
    """Returns what runs of one machine, in the order of their ends, say of the constants."""
    found = NONE
    seconds, slack = ([figure for run in runs if (figure := told(run))][-RECENT:] for told in (_seconds, _slack))
    if (factor := _factor(seconds)) is not None:
        found = replace(found, seconds=factor, seconds_runs=len(seconds))
    if (factor := _factor(slack)) is not None:
        found = replace(found, slack=factor, slack_runs=len(slack))
    return found


def _factor(figures: Sequence[Figure]) -> float | None:
    """The factor that suits all figures best; None where it does not help with others too."""
    if len(figures) < LEAST_RUNS or not LEAST <= (best := _best(figures)) <= MOST:
        return None
    left_out = [figure.error(_best([*figures[:place], *figures[place + 1 :]])) for place, figure in enumerate(figures)]
    return best if sum(left_out) < HELPING * sum(figure.error(1.0) for figure in figures) else None


def _best(figures: Sequence[Figure]) -> float:
    """The factor with the least errors: a median of each figure's own, weighed by the part it has in the figure."""
    own = sorted(((f.measured - f.fixed) / f.part, f.part / f.measured) for f in figures)
    half = sum(weight for _, weight in own) / 2
    reached = 0.0
    for factor, weight in own:
        reached += weight
        if reached >= half:
            return factor
    return own[-1][0]


def _seconds(run: Record) -> Figure | None:
    predicted, measured = run.predicted.get("step_seconds"), run.measured.get("step_seconds")
    disturbed = (run.spread or sys.float_info.max) > QUIET or (run.others or 0.0) > MOST_OTHERS
    if not predicted or not measured or measured < LONG_SECONDS or disturbed:
        return None
    return Figure(fixed=0.0, part=predicted / run.correction.get("seconds", 1.0), measured=measured)


def _slack(run: Record) -> Figure | None:
    predicted, measured = run.predicted.get("peak_bytes"), run.measured.get("peak_bytes")
    wasted = run.predicted.get("slack_bytes")
    if not predicted or not measured or not wasted:
        return None
    return Figure(fixed=predicted - wasted, part=wasted / run.correction.get("slack", 1.0), measured=measured)


def _file(machine: Machine) -> Path:
    return cache_files.path("refit", history.key(machine))
