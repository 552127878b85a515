"""The roofline of a plan's page: the operations of a step under what the device computes and moves.

Source: Williams et al. 2009, doi:10.1145/1498765.1498785.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from groundup.planner import units
from groundup.planner.explain_time import step_operations
from groundup.planner.operations import Operation, without_sizes
from groundup.planner.plan import Plan
from groundup.recipes.plots import Plot, colour, drawing, scaled, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS = 12  # operations on the roofline
NAME_HEIGHT = 0.072  # of the roofline's height, that a name takes
NAMED = {True: 4, False: 5}  # dots that are named of those below the flat roof, and of those below the slope
LEAST_SHARE = 0.01  # of the step's time, from which on they are named
BOUNDS = {"compute": "blue", "memory": "orange", "launch": "grey"}


def roofline_plot(plan: Plan) -> Plot:
    """Returns the operations of a step under the roof of what the device computes and moves."""
    machine = plan.study.site.machine
    every = [
        one for one in without_sizes(step_operations(plan)) if one.moved_bytes and 1000 * _done(one) > one.moved_bytes
    ]
    step = sum(one.seconds for one in every)
    shown = every[:DOTS]
    computes = plan.study.matrix_rate
    moves = next(sample.per_second for sample in machine.samples if sample.name == "stream")

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        left = min(0.05, *(_done(one) / one.moved_bytes / 2 for one in shown))
        right = 4 * max(computes / moves, *(_done(one) / one.moved_bytes for one in shown))
        ridge = computes / moves
        middle = math.sqrt(left * ridge)
        axis.plot([left, ridge, right], [left * moves, computes, computes], color=colour("ink"), linewidth=1.4)
        _beside(axis, f"{short(units.flops(computes))}/s", (right, computes), by=(0, 4), ha="right")
        _beside(axis, f"{units.bytes_(moves)}/s", (middle, middle * moves), by=(-5, 3), ha="right")
        for one in reversed(shown):
            at = (_done(one) / one.moved_bytes, _done(one) / one.seconds)
            size = 30 + 700 * one.seconds / step
            axis.scatter(*at, s=size, color=colour(BOUNDS[one.bound]), alpha=0.6, linewidths=0)
        axis.set_xscale("log")
        axis.set_yscale("log")
        named = [one for one in shown if one.seconds >= LEAST_SHARE * step]
        axis.set_xlim(left, right)
        axis.set_ylim(min(left * moves, *(_done(one) / one.seconds / 2 for one in shown)), 2 * computes)
        for under in (False, True):
            far = [one for one in named if (_done(one) / one.moved_bytes >= ridge / 8) == under][: NAMED[under]]
            _name(axis, far, step=step, moves=moves, under=under)
        scaled(axis, x=lambda value: f"{value:g}", y=lambda value: f"{short(units.flops(value))}/s")
        axis.set_xlabel("operations for each byte moved")

    told = "; ".join(f"{one.label} {units.percent(one.seconds / step)} of the time, {one.bound}" for one in shown)
    shared = " They are those of one row on a device that does all of the work." if plan.study.step.job else ""
    return Plot(
        title="The roofline, and the operations of a step under it",
        svg=drawing(draw, height=3.2, name="roofline", told=f"Operations of a step: {told}"),
        caption="The larger the dot, the more of the step's time; its hue says what holds it up: computing (blue), "
        "moving memory (orange), starting (grey). What is no product is counted as one operation for each number made."
        + shared,
        rows=(
            ("operation", "times", "of the time", "held up by"),
            *(
                (_plainly(one.label), units.count(round(one.times)), units.percent(one.seconds / step), one.bound)
                for one in shown
            ),
        ),
    )


def _done(one: Operation) -> float:
    """The operations that are counted: those of products, else one for each number made."""
    return one.flops or one.elements


def _name(axis: Axes, named: Sequence[Operation], *, step: float, moves: float, under: bool) -> None:
    """Writes the names of dots below each other, with a thin line from each to its dot, so that no lines cross.

    Args:
        axis: with its limits set.
        named: the operations.
        step: seconds of a step.
        moves: bytes per second.
        under: whether the names stand left below the dots, as under the roof, or to their right.
    """
    if not named:
        return
    to_axes = axis.transData + axis.transAxes.inverted()
    dots = {one: to_axes.transform((_done(one) / one.moved_bytes, _done(one) / one.seconds)) for one in named}
    if under:
        ordered = sorted(named, key=lambda one: dots[one][0])
        x, top = min(at[0] for at in dots.values()) - 0.02, min(at[1] for at in dots.values()) - 0.12
    else:
        ordered = sorted(named, key=lambda one: -dots[one][1])
        top = 0.02 + NAME_HEIGHT * (len(named) - 0.5)
        height = to_axes.inverted().transform((0.0, top + 0.05))[1]
        roof = to_axes.transform((height / moves, height))[0]  # to the right of which it is empty
        x = min(max(max(at[0] for at in dots.values()) + 0.12, roof + 0.02), 0.58)
    alike = Counter(one.name for one in named)
    for place, one in enumerate(ordered):
        axis.annotate(
            f"{_plainly(one.label if alike[one.name] > 1 else one.name)} {units.percent(one.seconds / step)}",
            (_done(one) / one.moved_bytes, _done(one) / one.seconds),
            xytext=(x, top - NAME_HEIGHT * place),
            textcoords="axes fraction",
            ha="right" if under else "left",
            va="center",
            fontsize=8,
            bbox={"facecolor": colour("card"), "edgecolor": "none", "pad": 0.6},
            arrowprops={
                "arrowstyle": "-",
                "color": colour("grey"),
                "linewidth": 0.6,
                "shrinkA": 1,
                "shrinkB": 2,
                "relpos": (1, 0.5) if under else (0, 0.5),
            },
        )


def _plainly(label: str) -> str:
    label = label.replace("_backward", " back").replace("_", " ")
    return label.replace("bfloat16", "bf16").replace("float16", "fp16").replace("float32", "fp32")


def _beside(axis: Axes, text: str, at: tuple[float, float], *, by: tuple[float, float], ha: str = "left") -> None:
    axis.annotate(text, at, xytext=by, textcoords="offset points", ha=ha)
