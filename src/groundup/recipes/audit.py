"""The plan of a run beside what was measured, when it is finished or still going.

Where the ledger has no line yet, the steps that were logged tell how fast the run is so far.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from groundup.errors import ModelError
from groundup.files import as_path, json_lines
from groundup.planner.audit import OPTIONAL, QUANTITIES, Audit, Entry, number, predicted, read_plan
from groundup.recipes.place import Place


def audit(run: Path | str) -> Audit:
    """Returns what was predicted for a run beside what was measured so far.

    Args:
        run: its folder.

    Raises:
        ModelError: the folder is not there or holds neither a plan nor a ledger.
    """
    place = Place(as_path(run))
    plan = read_plan(place.plan)
    recorded = {line["quantity"]: line for line in json_lines(place.ledger) if isinstance(line.get("quantity"), str)}
    if not plan and not recorded:
        there = [file.name for file in (place.plan, place.ledger) if file.exists()]
        what = f"nothing that can be read in its {' and '.join(there)}" if there else "neither a plan nor a ledger"
        raise ModelError(f"{run} has {what}; name the folder of a run that is whole, such as runs/quickstart")
    going = _from_metrics(json_lines(place.metrics))
    always = [name for name in QUANTITIES if name not in OPTIONAL or name in recorded]
    names = [*always, *(name for name in recorded if name not in QUANTITIES)]
    return Audit(tuple(_entry(name, plan, recorded.get(name, {}), going) for name in names))


def _entry(name: str, plan: Mapping[str, Any], line: Mapping[str, Any], going: Mapping[str, float]) -> Entry:
    _, unit = QUANTITIES.get(name, ("", str(line.get("unit", ""))))
    told = number(line.get("predicted"))
    measured = number(line.get("measured"))
    return Entry(
        quantity=name,
        unit=unit,
        predicted=predicted(plan, name) if told is None else told,
        measured=going.get(name) if measured is None else measured,
    )


def _from_metrics(lines: list[dict[str, Any]]) -> dict[str, float]:
    """What the logged steps tell: the median rate, and the mean time of a step."""
    rates = [rate for line in lines if (rate := number(line.get("tokens_per_second"))) is not None]
    found = {"tokens_per_second": median(rates)} if rates else {}
    counted = [
        (step, seconds)
        for line in lines
        if (step := number(line.get("step"))) and (seconds := number(line.get("seconds")))
    ]
    if counted:
        step, seconds = counted[-1]
        found["step_seconds"] = seconds / step
    return found
