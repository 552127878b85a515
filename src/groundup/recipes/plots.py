"""Drawings by matplotlib as SVG that stands inside a page: its text is text, its colours are the page's own.

matplotlib writes colours as numbers. Each colour of `COLOURS` is drawn as a number of its own, which is then replaced
by the name of a CSS variable, so that a drawing looks right on light and on dark pages.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import TYPE_CHECKING, SupportsFloat

from groundup.errors import MissingExtra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# In light and in dark: ink, lines and what is behind them, then eight hues that people with any colour vision tell
# apart (after Okabe and Ito 2008, jfly.uni-koeln.de/color).
COLOURS = {
    "ink": ("#22262e", "#e7e9ee"),
    "soft": ("#626a78", "#a3abb9"),
    "grid": ("#e2e5ea", "#363c47"),
    "page": ("#ffffff", "#14171c"),
    "card": ("#f7f8fa", "#1c2027"),
    "blue": ("#2f6db5", "#6aa6ea"),
    "orange": ("#d98a1f", "#eda94a"),
    "green": ("#218c6b", "#46b893"),
    "red": ("#c4502e", "#ec7f5e"),
    "purple": ("#9662a8", "#c493d4"),
    "sky": ("#4fa9d6", "#8ccbee"),
    "yellow": ("#c9b22c", "#e3d360"),
    "grey": ("#8a929f", "#7f8896"),
}
_DRAWN = {f"#0000{number:02x}": name for number, name in enumerate(COLOURS, start=1)}
_NUMBERS = {name: drawn for drawn, name in _DRAWN.items()}
WIDTH = 4.5  # inches; letters are sized for about as many on a screen
SETTINGS = {
    "svg.fonttype": "none",
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.8,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "lines.linewidth": 2.0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A drawing with what is written around it.

    Attributes:
        title: what it shows.
        svg: the drawing; empty where there is nothing to draw.
        caption: how it is read, or why there is nothing.
        rows: a table below it, its titles first; empty where there is none.
    """

    title: str
    svg: str
    caption: str
    rows: tuple[tuple[str, ...], ...] = ()


def css() -> str:
    """Returns the colours as CSS variables, in light and in dark."""
    light, dark = (" ".join(f"--{name}: {both[side]};" for name, both in COLOURS.items()) for side in (0, 1))
    return f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"


def colour(name: str) -> str:
    """Returns what a colour of `COLOURS` is drawn as."""
    return _NUMBERS[name]


def drawing(draw: Callable[[Figure], None], *, height: float, name: str, told: str) -> str:
    """Returns a drawing as SVG.

    Args:
        draw: draws into the figure that it is given.
        height: in inches, beside a width of `WIDTH`.
        name: of the drawing, unlike that of any other on the page.
        told: what it shows, for those who do not see it.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ModuleNotFoundError as fault:
        raise MissingExtra("matplotlib", purpose="drawing a page's plots", extra="plots") from fault
    ink = {
        "text.color": colour("ink"),
        "axes.edgecolor": colour("soft"),
        "axes.labelcolor": colour("soft"),
        "xtick.color": colour("soft"),
        "ytick.color": colour("soft"),
        "grid.color": colour("grid"),
    }
    with matplotlib.rc_context({**SETTINGS, **ink, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _for_pages(out.getvalue(), told=told)


def _for_pages(svg: str, *, told: str) -> str:
    """The SVG element alone, without sizes, names of groups and numbers for colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)  # the page says which letters
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    for drawn, name in _DRAWN.items():
        svg = svg.replace(drawn, f"var(--{name})")
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    return f'<svg {box[0]} role="img" aria-label="{escape(told)}">{svg[svg.index(">") + 1 :].strip()}'


def scaled(axis: Axes, *, x: Callable[[float], str] | None = None, y: Callable[[float], str] | None = None) -> None:
    """Writes the numbers of axes in people's units."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    for write, side in ((x, axis.xaxis), (y, axis.yaxis)):
        if write is not None:
            side.set_major_formatter(FuncFormatter(partial(_written, write)))
            side.set_minor_formatter(NullFormatter())


def short(text: str) -> str:
    """Returns a figure without zeros behind its point: ``1 PFLOP`` for ``1.00 PFLOP``."""
    return re.sub(r"(\d)\.0+(?=\D|$)", r"\1", text)


def _written(write: Callable[[float], str], value: SupportsFloat, _place: object) -> str:
    return write(float(value))
