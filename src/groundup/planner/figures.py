"""How a plan's figures are spoken of: their units, which are in their names, what they mean, terms made of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from groundup.planner.derivation import SUM, Derivation, Term

if TYPE_CHECKING:
    from groundup.planner.plan import Plan

UNITS = {
    "bytes": "bytes",
    "seconds": "seconds",
    "flops": "operations",
    "kwh": "kWh",
    "kg": "kg",
    "usd": "USD",
    "tokens": "tokens",
    "params": "parameters",
}
OTHER_UNITS = {
    "forward_flops_per_token": "operations",
    "train_flops_per_token": "operations",
    "tokens_per_second": "tokens/s",
    "utilisation": "share",
    "bubble_share": "share",
    "context": "tokens",
    "micro_batch": "rows",
    "predicted_loss": "nats per token",
}


def unit_of(figure: str) -> str:
    """Returns the unit of a figure, as `groundup.planner.derivation.written` takes it."""
    return OTHER_UNITS.get(figure) or UNITS.get(figure.rpartition("_")[2], "")


def own(plan: Plan, figure: str, *, source: str | None = None) -> Term:
    """Returns a figure of the plan as a term, which can be asked for its own derivation."""
    source = f"see {figure}" if source is None else source
    return Term(name=figure, value=getattr(plan, figure), unit=unit_of(figure), source=source)


def derive(
    plan: Plan,
    figure: str,
    *,
    terms: Sequence[Term],
    source: str,
    formula: str = SUM,
    breakdown: Sequence[Term] = (),
    notes: Sequence[str] = (),
) -> Derivation:
    """Returns the derivation of a figure of the plan; the arguments are those of `Derivation`."""
    return Derivation(
        figure=figure,
        value=getattr(plan, figure),
        unit=unit_of(figure),
        formula=formula,
        terms=tuple(terms),
        source=source,
        meaning=meanings(type(plan)).get(figure, ""),
        breakdown=tuple(breakdown),
        notes=tuple(notes),
    )


@cache
def meanings(kind: type) -> dict[str, str]:
    """Returns what each figure of a class means, as its docstring says."""
    _, _, told = (kind.__doc__ or "").partition("Attributes:\n")
    entries = re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", told, re.MULTILINE)
    return {name: _sentence(text) for name, text in entries}


def _sentence(text: str) -> str:
    text = " ".join(text.replace("``", "").split())
    return text[0].upper() + text[1:]
