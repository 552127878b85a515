"""A run as a page: what it came to, its curves, the plan beside what was measured, and what the model writes.

The page is one file without scripts and without anything from elsewhere, so it can be mailed and opens anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from html import escape
from typing import Any

from groundup.evals.perplexity import Score
from groundup.files import atomic_write, json_lines
from groundup.planner import books, units
from groundup.planner.audit import number
from groundup.planner.machine import calibrate
from groundup.recipes import charts
from groundup.recipes.audit import audit
from groundup.recipes.doctor import describe
from groundup.recipes.place import Place
from groundup.recipes.settings import Run, write_spec
from groundup.training.budget import Tally


def write_report(run: Run, place: Place, *, tally: Tally, score: Score, samples: Iterable[str]) -> None:
    """Writes the page of a finished run to its place.

    Raises:
        StorageError: the disk is full or the place cannot be written.
    """
    logged, bits = json_lines(place.metrics), score.bits_per_byte
    valid = [*_points(logged, "validation", "loss"), (tally.tokens, score.loss)]
    facts = [
        ("model", f"{units.count(books.params(run.model))} parameters"),
        ("text", run.data.source),
        ("machine", f"{describe(calibrate())['processor']}; {date.today().isoformat()}"),
        *([] if bits is None else [("bits per byte, on text that was held out", f"{bits:.4f}")]),
        ("loss, nats per token", f"{score.loss:.4f}"),
        ("perplexity", f"{score.perplexity:,.2f}"),
        ("steps", f"{tally.steps:,}"),
        ("tokens", f"{tally.tokens:,}"),
        ("time of training", units.duration(tally.seconds)),
    ]
    parts = [
        f"<h1>{escape(place.folder.resolve().name)}</h1>",
        charts.table(facts, kind="facts"),
        "<h2>Loss over tokens</h2>",
        charts.lines({"training": _points(logged, "loss")}, dots={"held out": valid}),
        "<h2>Tokens per second, over tokens</h2>",
        charts.lines({"training": _points(logged, "tokens_per_second")}),
        "<h2>The plan beside what was measured</h2>",
        f"<pre>{escape(str(audit(place.folder)))}</pre>",
        "<h2>What the model writes</h2>",
        *(f"<pre>{escape(sample)}</pre>" for sample in samples),
        f"<details><summary>Settings</summary><pre>{escape(write_spec(run))}</pre></details>",
    ]
    atomic_write(place.report, charts.page(f"groundup: {place.folder.resolve().name}", parts))


def _points(logged: Iterable[dict[str, Any]], *names: str) -> charts.Points:
    """Returns the tokens read and a figure, for each logged step that has both."""
    both = ((number(entry.get("tokens")), _figure(entry, names)) for entry in logged)
    return [(tokens, figure) for tokens, figure in both if tokens is not None and figure is not None]


def _figure(entry: Any, names: Sequence[str]) -> float | None:
    for name in names:
        entry = entry.get(name) if isinstance(entry, dict) else None
    return number(entry)
