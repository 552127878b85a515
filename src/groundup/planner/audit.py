"""What was planned beside what was measured, a line for each quantity in the ledger of a run.

    {"quantity": "step_seconds", "unit": "s", "predicted": 1.02, "measured": 1.08, "error": -0.056}

Where a run keeps it is none of this file's business, see `groundup.recipes.audit`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.errors import writing
from groundup.planner import units
from groundup.planner.table import aligned


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One quantity, predicted and measured; None where one of them is not known.

    Attributes:
        quantity: its name, a key of `QUANTITIES` or any other.
        unit: of both figures: ``s``, ``bytes``, ``FLOP``, ``tokens/s`` or empty.
        predicted: by the plan.
        measured: in the run.
    """

    quantity: str
    unit: str
    predicted: float | None
    measured: float | None

    @property
    def error(self) -> float | None:
        """How far the plan is off, as a share of what was measured: above 0 where it predicted too much."""
        if self.predicted is None or not self.measured:
            return None
        return self.predicted / self.measured - 1

    def to_dict(self) -> dict[str, Any]:
        """Returns the entry as a line of the ledger has it."""
        return {
            "quantity": self.quantity,
            "unit": self.unit,
            "predicted": self.predicted,
            "measured": self.measured,
            "error": self.error,
        }


# What a plan predicts and a run can measure: the plan's key and the unit.
QUANTITIES = {
    "parameters": ("params", ""),
    "step_flops": ("step_flops", "FLOP"),
    "peak_bytes": ("peak_bytes", "bytes"),
    "step_seconds": ("step_seconds", "s"),
    "tokens_per_second": ("tokens_per_second", "tokens/s"),
    "train_seconds": ("train_seconds", "s"),
    "steps": ("steps", ""),
    "weights_bytes": ("weights_bytes", "bytes"),
    "optimizer_bytes": ("optimizer_bytes", "bytes"),
    "gradients_bytes": ("gradients_bytes", "bytes"),
    "other_bytes": ("", "bytes"),  # of the peak, besides weights and optimizer: activations, gradients, the program
    "energy_kwh": ("energy_kwh", "kWh"),
}
OPTIONAL = ("weights_bytes", "optimizer_bytes", "gradients_bytes", "other_bytes", "energy_kwh")  # not of every run


@dataclass(frozen=True)
class Audit:
    """All quantities of a run.

    Attributes:
        entries: in the order of `QUANTITIES`, then others.
    """

    entries: tuple[Entry, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns the audit as plain data."""
        return {"entries": [entry.to_dict() for entry in self.entries]}

    def __str__(self) -> str:
        """Returns a table."""
        rows = [("", "predicted", "measured", "error")]
        rows += [
            (e.quantity.replace("_", " "), _shown(e, e.predicted), _shown(e, e.measured), _off(e)) for e in self.entries
        ]
        return "\n".join(aligned(rows))


def entries(plan: Mapping[str, Any], measured: Mapping[str, float]) -> list[Entry]:
    """Returns an entry for each measured quantity beside what a plan (its ``to_dict()``) predicted.

    Args:
        plan: the plan.
        measured: figures by quantity, keys of `QUANTITIES`.

    Raises:
        KeyError: a quantity that no plan predicts.
    """
    return [
        Entry(quantity=name, unit=QUANTITIES[name][1], predicted=predicted(plan, name), measured=figure)
        for name, figure in measured.items()
    ]


def predicted(plan: Mapping[str, Any], quantity: str) -> float | None:
    """Returns what a plan (its ``to_dict()``) says of a quantity; None where it says nothing."""
    if quantity == "other_bytes":
        parts = [number(plan.get(name)) for name in ("peak_bytes", "weights_bytes", "optimizer_bytes")]
        known = [part for part in parts if part is not None]
        return known[0] - known[1] - known[2] if len(known) == len(parts) else None
    return number(plan.get(QUANTITIES.get(quantity, ("", ""))[0]))


def record(ledger: Path, found: Iterable[Entry]) -> None:
    """Adds lines to a ledger.

    Raises:
        StorageError: it cannot be written.
    """
    with writing(ledger), ledger.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(entry.to_dict()) + "\n" for entry in found)


def read_plan(file: Path) -> dict[str, Any]:
    """Returns the plan of a run as plain data; nothing where the file is not there or damaged."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def number(value: Any) -> float | None:
    """Returns a value that a file holds if it is a finite number, else None."""
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return value if known and abs(value) < sys.float_info.max else None


_FORMATS: dict[str, Callable[[float], str]] = {
    "s": units.duration,
    "bytes": units.bytes_,
    "FLOP": units.flops,
    "tokens/s": lambda rate: f"{units.count(rate)} tokens/s",
    "kWh": lambda energy: f"{units.count(energy)} kWh" if energy >= 0.1 else f"{1e3 * energy:.3g} Wh",
    "": lambda number: f"{number:,.6g}" if number % 1 else f"{number:,.0f}",
}


def _shown(entry: Entry, figure: float | None) -> str:
    if figure is None:
        return "-"
    return _FORMATS[entry.unit](figure) if entry.unit in _FORMATS else f"{figure:,.4g} {entry.unit}"


def _off(entry: Entry) -> str:
    if entry.error is None:
        return ""
    return "exact" if entry.error == 0 else f"{100 * entry.error:+.1f}%"
