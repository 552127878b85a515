"""Drawings for pages: lines over axes, and figures with their intervals; SVG without scripts, on any background."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape

from groundup.planner import units

Points = Sequence[tuple[float, float]]
Write = Callable[[float], str]
WIDTH, HEIGHT, LEFT, BOTTOM = 720, 260, 76, 28  # of a drawing, in pixels
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse } td, th { padding: .15rem 1.2rem .15rem 0; text-align: right; font-weight: normal }
td:first-child { text-align: left }
th { color: #667; white-space: nowrap }
th:first-child, .facts td { text-align: left } summary { cursor: pointer; margin-top: 2rem; font-weight: bold }
pre { background: #f5f6f8; padding: .8rem; white-space: pre-wrap; font-size: .85rem; line-height: 1.35 }
svg { width: 100%; height: auto } svg text { font: 12px system-ui, sans-serif; fill: #667 }
.grid { stroke: #e4e6ea } .legend span { white-space: nowrap; margin-right: 1rem } .legend i { font-style: normal }
"""


def page(title: str, parts: Sequence[str], *, style: str = "") -> str:
    """Returns a page in one file, which can be mailed and opens anywhere; ``style`` comes after that of all pages."""
    about = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    head = f'<!doctype html><html lang="en">{about}<style>{STYLE}{style}</style>'
    return "\n".join([head, *parts, "</html>\n"])


def table(rows: Sequence[Sequence[object]], *, header: bool = False, kind: str = "figures") -> str:
    """Returns a table of ``figures`` or ``facts``; with ``header``, its first row holds the titles."""
    cells = ["".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows]
    if header:
        cells[0] = cells[0].replace("<td>", "<th>").replace("</td>", "</th>")
    return f"<table class='{kind}'>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def lines(
    series: Mapping[str, Points],
    *,
    dots: Mapping[str, Points] | None = None,
    logarithmic: bool = False,
    x: Write = units.count,
    y: Write = units.count,
) -> str:
    """Returns a drawing of lines, and of dots in their colours, over the same axes; a legend where there are several.

    Args:
        series: the points of each line, by name.
        dots: points that are drawn alone, by the name of the line that they belong to.
        logarithmic: whether both axes are.
        x: writes a number of the axis across.
        y: writes one of the axis upwards.
    """
    dots = dots or {}
    every = [point for points in (*series.values(), *dots.values()) for point in points]
    if not every:
        return "<p>Nothing was logged.</p>"
    axes, names = _Axes(every, logarithmic=logarithmic), list(dict.fromkeys([*series, *dots]))
    drawn = [*axes.drawn(x, y)]
    for name, points in series.items():
        path = " ".join(f"{a},{b}" for a, b in (axes.place(*point) for point in points))
        drawn.append(f'<polyline stroke="{_colour(names, name)}" fill="none" stroke-width="1.5" points="{path}"/>')
    for name, points in dots.items():
        places = (axes.place(*point) for point in points)
        drawn += [f'<circle fill="{_colour(names, name)}" cx="{a}" cy="{b}" r="3.5"/>' for a, b in places]
    drawing = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(drawn)}</svg>'
    return drawing + (_legend(names) if len(names) > 1 else "")


class _Axes:
    """Two axes around points: linear from zero across, or logarithms of two both ways."""

    def __init__(self, points: Points, *, logarithmic: bool) -> None:
        self.logarithmic = logarithmic
        self.scale: Callable[[float], float] = math.log2 if logarithmic else float
        first = [self.scale(a) for a, _ in points]
        self.up = _ticks([self.scale(b) for _, b in points])
        self.left, self.right = (min(first) if logarithmic else 0.0), max(first)
        self.across = _few(first) if logarithmic else [t for t in _ticks([0.0, self.right]) if 0 < t <= self.right]

    def place(self, a: float, b: float) -> tuple[float, float]:
        """Returns where a point is drawn."""
        return self._across(self.scale(a)), self._height(self.scale(b))

    def drawn(self, x: Write, y: Write) -> Iterator[str]:
        """Yields the lines and numbers of the axes."""
        number: Callable[[float], float] = (lambda value: 2**value) if self.logarithmic else float
        for value in self.up:
            height = self._height(value)
            yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 10}" y1="{height}" y2="{height}"/>'
            yield f'<text x="{LEFT - 8}" y="{height + 4}" text-anchor="end">{escape(y(number(value)))}</text>'
        for value in self.across:
            anchor = "end" if self._across(value) > WIDTH - 40 else "middle"
            place = f'x="{self._across(value)}" y="{HEIGHT - 4}" text-anchor="{anchor}"'
            yield f"<text {place}>{escape(x(number(value)))}</text>"

    def _across(self, value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - 10) * (value - self.left) / ((self.right - self.left) or 1.0), 1)

    def _height(self, value: float) -> float:
        share = (value - self.up[0]) / (self.up[-1] - self.up[0])
        return round((HEIGHT - BOTTOM) * (1 - share) * 0.94 + 10, 1)


def intervals(rows: Sequence[tuple[str, float, float, float]], *, write: Write) -> str:
    """Returns a drawing of figures with their intervals, one below the other: (name, value, low, high)."""
    height, space = 24 * len(rows) + 40, 150
    ticks = _ticks([edge for _, _, low, high in rows for edge in (low, high)])

    def place(value: float) -> float:
        return round(space + (WIDTH - space - 20) * (value - ticks[0]) / (ticks[-1] - ticks[0]), 1)

    drawn = []
    for tick in ticks:
        drawn.append(f'<line class="grid" x1="{place(tick)}" x2="{place(tick)}" y1="8" y2="{height - 26}"/>')
        drawn.append(f'<text x="{place(tick)}" y="{height - 8}" text-anchor="middle">{escape(write(tick))}</text>')
    for number, (name, value, low, high) in enumerate(rows):
        middle = 24 * number + 22
        drawn.append(f'<text x="{space - 12}" y="{middle + 4}" text-anchor="end">{escape(name)}</text>')
        ends = f'x1="{place(low)}" x2="{place(high)}" y1="{middle}" y2="{middle}"'
        drawn.append(f'<line {ends} stroke="#3b6fb6" stroke-width="2"/>')
        drawn.append(f'<circle fill="#3b6fb6" cx="{place(value)}" cy="{middle}" r="4"/>')
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(drawn)}</svg>'


def _colour(names: Sequence[str], name: str) -> str:
    """One of as many hues as there are names, far apart for neighbours."""
    return f"hsl({(215 + 137 * names.index(name)) % 360} 60% 45%)"


def _legend(names: Sequence[str]) -> str:
    marks = (f'<span><i style="color:{_colour(names, name)}">●</i> {escape(name)}</span>' for name in names)
    return f'<p class="legend">{" ".join(marks)}</p>'


def _few(values: Sequence[float]) -> list[float]:
    """Returns the values themselves where they are few, else the least and the largest."""
    distinct = sorted(set(values))
    return distinct if len(distinct) <= 6 else [distinct[0], distinct[-1]]


def _ticks(values: Sequence[float]) -> list[float]:
    """Returns round numbers, four to ten of them, from below the least value to above the largest."""
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    size = 10 ** math.floor(math.log10(span / 4))
    step = next(size * times for times in (1, 2, 5, 10) if span / (size * times) <= 8)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [step * i for i in range(first, max(last, first + 1) + 1)]
