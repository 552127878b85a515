"""How wrong the plans of all runs on this machine were, and what that says of the next ones."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

from groundup.planner import history, units
from groundup.planner.history import Record
from groundup.planner.machine import calibrate
from groundup.planner.refit import LEAST_RUNS, Correction, refit
from groundup.planner.table import aligned
from groundup.recipes import charts

JUDGED = {"peak_bytes": "peak memory", "step_seconds": "step time", "energy_kwh": "energy"}
BARS = "▁▂▃▄▅▆▇█"
MOST_BARS = 40  # the newest runs


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The errors of a quantity over runs, as shares of what was measured.

    Attributes:
        quantity: a key of `JUDGED`.
        errors: of each run that has one, in the order of their ends.
    """

    quantity: str
    errors: tuple[float, ...]

    @property
    def middle(self) -> float | None:
        """The median distance from what was measured."""
        return median(map(abs, self.errors)) if self.errors else None

    @property
    def ninetieth(self) -> float | None:
        """The distance that nine of ten runs are within."""
        ordered = sorted(map(abs, self.errors))
        return ordered[-(-9 * len(ordered) // 10) - 1] if ordered else None

    @property
    def bars(self) -> str:
        """The distances as a row of bars, the newest to the right; the largest bar is the largest distance."""
        far = [abs(error) for error in self.errors[-MOST_BARS:]]
        largest = max(far, default=0.0) or 1.0
        return "".join(BARS[round((len(BARS) - 1) * x / largest)] for x in far)


@dataclass(frozen=True, kw_only=True)
class History:
    """All runs that ended on this machine.

    Attributes:
        runs: in the order of their ends.
        judged: the errors of each quantity.
        correction: what plans for this machine are corrected by from now on.
        here: how many of the runs were made with this processor, these threads and this PyTorch.
    """

    runs: tuple[Record, ...]
    judged: tuple[Judged, ...]
    correction: Correction
    here: int

    def to_dict(self) -> dict[str, Any]:
        """Returns the history as plain data."""
        return {
            "runs": [
                {
                    "run": run.run,
                    "there": Path(run.run).is_dir(),
                    "time": run.time,
                    "machine": run.machine,
                    "params": run.params,
                    **{f"{name}_error": run.error(name) for name in JUDGED},
                }
                for run in self.runs
            ],
            "errors": {
                one.quantity: {"median": one.middle, "ninetieth_percentile": one.ninetieth, "runs": len(one.errors)}
                for one in self.judged
            },
            "correction": self.correction.figures()
            | {"seconds_runs": self.correction.seconds_runs, "slack_runs": self.correction.slack_runs},
        }

    def __str__(self) -> str:
        """Returns the tables."""
        if not self.runs:
            return f"No run has ended on this machine yet; each adds itself to {history.file()}."
        rows = [("run", "parameters", "date", *JUDGED.values())]
        rows += [
            (
                _name(run),
                units.count(run.params) if run.params else "-",
                run.time[:10],
                *map(_off, map(run.error, JUDGED)),
            )
            for run in self.runs
        ]
        table = [("error", "median", "90% within", "runs", "over time")]
        table += [
            (JUDGED[one.quantity], _far(one.middle), _far(one.ninetieth), str(len(one.errors)), one.bars)
            for one in self.judged
        ]
        said = list(self.correction.sentences())
        if not said:
            said.append(
                f"Plans are not corrected yet: that takes {LEAST_RUNS} quiet runs of this machine and PyTorch "
                f"({self.here} of these runs are), with steps of 30 ms or more for the time."
            )
        return "\n".join([*aligned(rows), "", *aligned(table), "", *said])


def audit_all() -> History:
    """Returns the errors of all runs on this machine, and refits what the next plans are corrected by."""
    machine, runs = calibrate(), history.read()
    judged = [
        Judged(quantity=name, errors=tuple(error for run in runs if (error := run.error(name)) is not None))
        for name in JUDGED
    ]
    here = sum(run.machine == history.key(machine) for run in runs)
    return History(runs=tuple(runs), judged=tuple(judged), correction=refit(machine), here=here)


def history_page(found: History) -> str:
    """Returns the history as a page in one file."""
    parts = ["<h1>How wrong the plans were</h1>"]
    for one in found.judged:
        points = [(float(number), 100 * error) for number, error in enumerate(one.errors, start=1)]
        if points:
            parts += [
                f"<h2>Error of the {JUDGED[one.quantity]}, run after run</h2>",
                charts.lines({JUDGED[one.quantity]: points}, x=lambda x: f"{x:.0f}", y=lambda y: f"{y:+.0f}%"),
            ]
    return charts.page("groundup: how wrong the plans were", [*parts, f"<pre>{escape(str(found))}</pre>"])


def _name(run: Record) -> str:
    folder = Path(run.run)
    return folder.name if folder.is_dir() else f"{folder.name} (gone)"


def _off(error: float | None) -> str:
    return "-" if error is None else f"{100 * error:+.1f}%"


def _far(error: float | None) -> str:
    return "-" if error is None else f"{100 * error:.1f}%"
