"""A run as a page: what it came to, its curves, the plan beside what was measured, and what the model writes.

The page is one file without scripts and without anything from elsewhere, so it can be mailed and opens anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from groundup.evals.perplexity import Score
from groundup.files import atomic_write, json_lines
from groundup.planner import units
from groundup.planner.audit import audit, number
from groundup.recipes.place import Place
from groundup.recipes.settings import Run, write_run
from groundup.training.budget import Tally

Points = Sequence[tuple[float, float]]
WIDTH, HEIGHT, LEFT, BOTTOM = 720, 260, 56, 28  # of a chart, in pixels
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse } td, th { padding: .15rem 1.2rem .15rem 0; text-align: right; font-weight: normal }
td:first-child { text-align: left } th { color: #667 }
pre { background: #f5f6f8; padding: .8rem; overflow-x: auto; font-size: .85rem; line-height: 1.35 }
svg { width: 100%; height: auto } svg text { font: 12px system-ui, sans-serif; fill: #667 }
.grid { stroke: #e4e6ea } .train { stroke: #3b6fb6; fill: none; stroke-width: 1.5 } .valid { fill: #d1632b }
"""


def write_report(run: Run, place: Place, *, tally: Tally, score: Score, samples: Iterable[str]) -> None:
    """Writes the page of a finished run to its place.

    Raises:
        StorageError: the disk is full or the place cannot be written.
    """
    logged, bits = json_lines(place.metrics), score.bits_per_byte
    valid = [*_points(logged, "validation", "loss"), (tally.tokens, score.loss)]
    facts = [
        *([] if bits is None else [("bits per byte, on text that was held out", f"{bits:.4f}")]),
        ("loss, nats per token", f"{score.loss:.4f}"),
        ("perplexity", f"{score.perplexity:,.2f}"),
        ("steps", f"{tally.steps:,}"),
        ("tokens", f"{tally.tokens:,}"),
        ("time of training", units.duration(tally.seconds)),
    ]
    parts = [
        f"<h1>{escape(place.folder.resolve().name)}</h1>",
        _table(facts),
        "<h2>Loss over tokens</h2><p>Line: training text. Dots: text that was held out.</p>",
        _chart(_points(logged, "loss"), dots=valid),
        "<h2>Tokens per second</h2>",
        _chart(_points(logged, "tokens_per_second")),
        "<h2>The plan beside what was measured</h2>",
        f"<pre>{escape(str(audit(place.folder)))}</pre>",
        "<h2>What the model writes</h2>",
        *(f"<pre>{escape(sample)}</pre>" for sample in samples),
        "<h2>Settings</h2>",
        f"<pre>{escape(write_run(run))}</pre>",
    ]
    title = escape(f"groundup: {place.folder.resolve().name}")
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    atomic_write(place.report, "\n".join([head, *parts, "</html>\n"]))


def _points(logged: Iterable[dict[str, Any]], *names: str) -> Points:
    """Returns the tokens read and a figure, for each logged step that has both."""
    both = ((number(entry.get("tokens")), _figure(entry, names)) for entry in logged)
    return [(tokens, figure) for tokens, figure in both if tokens is not None and figure is not None]


def _figure(entry: Any, names: Sequence[str]) -> float | None:
    for name in names:
        entry = entry.get(name) if isinstance(entry, dict) else None
    return number(entry)


def _table(rows: Iterable[tuple[Any, ...]]) -> str:
    cells = ("".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows)
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def _chart(line: Points, *, dots: Points = ()) -> str:
    """Returns a drawing of a line and of dots over the same axes."""
    every = [*line, *dots]
    if not every:
        return "<p>Nothing was logged.</p>"
    rows = _ticks([y for _, y in every])
    right = max(x for x, _ in every) or 1.0
    low, high = rows[0], rows[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - 10) * x / right
        return round(across, 1), round((HEIGHT - BOTTOM) * (1 - (y - low) / (high - low)) * 0.94 + 10, 1)

    drawn = []
    for y in rows:
        _, height = place(0, y)
        drawn.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 10}" y1="{height}" y2="{height}"/>')
        drawn.append(f'<text x="{LEFT - 8}" y="{height + 4}" text-anchor="end">{units.count(y)}</text>')
    for share in (0.25, 0.5, 0.75, 1.0):
        across, _ = place(share * right, low)
        drawn.append(f'<text x="{across}" y="{HEIGHT - 4}" text-anchor="end">{units.count(share * right)}</text>')
    path = " ".join(f"{x},{y}" for x, y in (place(*point) for point in line))
    drawn.append(f'<polyline class="train" points="{path}"/>')
    drawn += [f'<circle class="valid" cx="{x}" cy="{y}" r="3.5"/>' for x, y in (place(*point) for point in dots)]
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(drawn)}</svg>'


def _ticks(values: Sequence[float]) -> list[float]:
    """Returns round numbers, four to ten of them, from below the least value to above the largest."""
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    size = 10 ** math.floor(math.log10(span / 4))
    step = next(size * times for times in (1, 2, 5, 10) if span / (size * times) <= 8)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [step * i for i in range(first, max(last, first + 1) + 1)]
