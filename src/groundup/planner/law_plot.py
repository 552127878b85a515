"""A law of one's own as a picture: losses over operations, the runs as dots, the law as curves."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from groundup.errors import ConfigError, MissingExtra
from groundup.files import atomic_write
from groundup.planner import units
from groundup.planner.scaling import FLOPS_PER_PARAM_TOKEN

if TYPE_CHECKING:
    from groundup.planner.fitting import Fit

KINDS = ("png", "svg", "pdf")
BEYOND = 30.0  # times the largest run's operations, as far as the law is drawn
BAND_POINTS = 60


def write_plot(fit: Fit, file: Path) -> None:
    """Writes the picture of a law to a file; its name says of which kind.

    Raises:
        ConfigError: it is of no kind that can be written.
        MissingExtra: matplotlib is not installed.
        StorageError: the file cannot be written.
    """
    kind = file.suffix.lower().removeprefix(".")
    if kind not in KINDS:
        raise ConfigError(f"{file} does not end in .{', .'.join(KINDS)}; name a file of one of these kinds")
    atomic_write(file, picture(fit, kind=kind))


def picture(fit: Fit, *, kind: str = "svg") -> bytes:
    """Returns the picture of a law as the content of a file.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as fault:
        raise MissingExtra("matplotlib", purpose="drawing a law", extra="plots") from fault
    figure = Figure(figsize=(8, 5), layout="constrained")
    _draw(figure.subplots(), fit)
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {})
    return file.getvalue()


def _draw(axes: Any, fit: Fit) -> None:
    import matplotlib

    points = fit.points
    low, high = points[0].flops / 2, points[-1].flops * BEYOND
    sizes = sorted({p.params for p in points})
    colours = matplotlib.colormaps["viridis"]([i / max(len(sizes), 1) for i in range(len(sizes))])
    for size, colour in zip(sizes, colours, strict=True):
        own = [p for p in points if p.params == size]
        flops = np.geomspace(min(p.flops for p in own) / 2, max(p.flops for p in own) * 4, BAND_POINTS)
        axes.plot(flops, [fit.law.loss(size, c / FLOPS_PER_PARAM_TOKEN / size) for c in flops], color=colour, lw=1)
        label = f"{units.count(size)} parameters" if len(sizes) <= 8 else None
        axes.plot([p.flops for p in own], [p.loss for p in own], "o", color=colour, label=label)
    flops = np.geomspace(low, high, BAND_POINTS)
    if fit.law.alpha > 0 and fit.law.beta > 0:
        best = [fit.law.best(c) for c in flops]
        told = [fit.loss(*sizes) for sizes in best]
        axes.plot(flops, [x.value for x in told], "k--", lw=1.2, label="the law, at its best sizes")
        if not math.isnan(told[0].low):
            axes.fill_between(flops, [x.low for x in told], [x.high for x in told], color="k", alpha=0.12, lw=0)
    axes.axhline(fit.law.floor, color="k", lw=0.6, ls=":", label=f"floor E = {fit.law.floor:.2f}")
    losses = [p.loss for p in points]
    axes.set(xscale="log", xlabel="operations, 6 N D", ylabel="loss, nats per token")
    axes.set_ylim(min(*losses, fit.law.floor) - 0.1 * (max(losses) - min(losses)), max(losses) * 1.05)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
