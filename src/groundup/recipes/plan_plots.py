"""The plots of a plan's page: memory, other shapes, the roofline, the law of the loss, places, layouts."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from groundup.planner import curves, units
from groundup.planner.curves import Point
from groundup.planner.explain_memory import peak
from groundup.planner.explain_time import layouts_tried, step_operations
from groundup.planner.layout import Laid
from groundup.planner.memory import Memory
from groundup.planner.operations import Operation, without_sizes
from groundup.planner.plan import Plan
from groundup.recipes.plots import colour, drawing, scaled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LAYOUTS = 10  # that are drawn
DOTS = 12  # operations on the roofline
NAME_HEIGHT = 0.072  # of the roofline's height, that a name takes
LEAST_SHARE = 0.01  # of the step's time, from which on they are named
BOUNDS = {"compute": "blue", "memory": "orange", "launch": "grey"}
COMPONENTS = {
    "program": "grey",
    "weights": "blue",
    "optimizer": "purple",
    "gradients": "green",
    "copies of weights": "sky",
    "activations": "orange",
    "logits and loss": "red",
    "for the moment": "red",
    "allocator": "yellow",
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


def components(plan: Plan) -> dict[str, int]:
    """Returns what is held at the peak, by component; the sizes add up to the peak."""
    held = {"program": plan.process_bytes, "weights": plan.weights_bytes, "optimizer": plan.optimizer_bytes}
    if isinstance(plan.study.memory, Memory):
        found = peak(plan)
        held |= {
            "gradients": _whole(found.gradients.value),
            "copies of weights": _whole(found.copies.value),
            "activations": _whole(found.activations.value),
            "logits and loss" if found.moment == "loss" else "for the moment": _whole(found.passing.value),
            "allocator": plan.slack_bytes,
        }
    else:
        held |= {
            "gradients": plan.gradients_bytes,
            "activations": plan.activations_bytes,
            "logits and loss": plan.logits_bytes,
        }
    return {name: size for name, size in held.items() if size}


def _whole(value: float | None) -> int:
    return int(value or 0)


def memory_plot(plan: Plan) -> Plot:
    """Returns the memory by component, one after the other, against what the device has."""
    held = components(plan)
    usable = plan.memory_bytes * (plan.study.usable_share if plan.study.job is None else 1.0)

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        names = ["all", *held]
        before = 0
        for place, (name, size) in enumerate(held.items(), start=1):
            hue = colour(COMPONENTS[name])
            axis.barh([0, place], [size, size], left=before, color=hue, height=[0.86, 0.62])
            inside = before + size > 0.72 * max(plan.peak_bytes, plan.memory_bytes)
            axis.annotate(
                units.bytes_(size),
                (before if inside else before + size, place),
                xytext=(-4 if inside else 4, 0),
                textcoords="offset points",
                ha="right" if inside else "left",
                va="center",
            )
            before += size
        axis.axvline(plan.memory_bytes, color=colour("ink"), linewidth=1.4)
        if usable < plan.memory_bytes:
            axis.axvline(usable, color=colour("soft"), linewidth=1.2, linestyle=(0, (3, 2)))
        axis.set_yticks(range(len(names)), names)
        axis.invert_yaxis()
        axis.set_xlim(0, 1.06 * max(plan.peak_bytes, plan.memory_bytes))
        axis.grid(axis="y", visible=False)
        axis.margins(y=0.02)
        _in_bytes(axis, "x")

    share = plan.peak_bytes / plan.memory_bytes
    told = ", ".join(f"{name} {units.bytes_(size)}" for name, size in held.items())
    verdict = "fits" if plan.fits else "does not fit"
    return Plot(
        title="Memory at the peak",
        svg=drawing(draw, height=0.55 + 0.27 * len(held), name="memory", told=f"Memory at the peak: {told}"),
        caption=f"{units.bytes_(plan.peak_bytes)} are {units.percent(share)} of the {units.bytes_(plan.memory_bytes)} "
        f"that {'each device' if plan.devices > 1 else 'the device'} has (the line): it {verdict}."
        + (" Dashed: what a run may use of it." if usable < plan.memory_bytes else ""),
    )


def shape_plot(plan: Plan, *, of: str) -> Plot:
    """Returns memory and time of the plan's step with other rows, or with rows of other lengths."""
    points = curves.by_rows(plan) if of == "rows" else curves.by_context(plan)
    here = plan.micro_batch if of == "rows" else plan.context
    what = "rows of a micro-batch" if of == "rows" else "tokens of a row"

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, sharex=True)
        peaks, times = [point.peak_bytes for point in points], [point.step_seconds for point in points]
        _curve(upper, points, peaks, here=here, hue="blue")
        upper.axhline(plan.memory_bytes, color=colour("ink"), linewidth=1.2)
        upper.set_yscale("log", base=2)
        upper.set_ylim(0.75 * min(plan.memory_bytes, *peaks), 1.9 * max(plan.memory_bytes, *peaks))
        crossed = plan.memory_bytes < math.sqrt(peaks[0] * peaks[-1])
        where, side = (0.99, "right") if crossed else (0.01, "left")
        upper.annotate(
            f"{units.bytes_(plan.memory_bytes)} of the device",
            (where, plan.memory_bytes),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            ha=side,
        )
        upper.set_title("peak memory", loc="left", color=colour("soft"))
        _in_bytes(upper, "y")
        _curve(lower, points, times, here=here, hue="orange")
        lower.set_yscale("log")
        lower.set_ylim(0.7 * min(times), 1.4 * max(times))
        _round_ticks(lower, few=max(times) < 30 * min(times))
        lower.set_title("time of a step", loc="left", color=colour("soft"))
        scaled(lower, y=_seconds)
        lower.set_xscale("log", base=2)
        lower.set_xticks([point.at for point in points])
        scaled(lower, x=lambda value: f"{value:,.0f}")
        lower.set_xlabel(what)

    told = "; ".join(
        f"{point.at:,}: {units.bytes_(point.peak_bytes)}, {units.duration(point.step_seconds)}" for point in points
    )
    batches = "one micro-batch" if plan.accumulate == 1 else f"{plan.accumulate:,} micro-batches"
    kept = f"{plan.context:,} tokens a row" if of == "rows" else units.several(plan.micro_batch, "row")
    return Plot(
        title="More rows, or fewer" if of == "rows" else "Longer rows, or shorter",
        svg=drawing(draw, height=3.3, name=of, told=f"Peak memory and time of a step by {what}: {told}"),
        caption=f"The plan's step, {batches} with {kept}, planned for other {what}. The plan is the large dot.",
    )


def _curve(axis: Axes, points: Sequence[Point], values: Sequence[float], *, here: int, hue: str) -> None:
    across = [point.at for point in points]
    axis.plot(across, values, color=colour(hue), marker="o", markersize=3)
    axis.plot(
        [at for at in across if at == here],
        [value for at, value in zip(across, values, strict=True) if at == here],
        color=colour(hue),
        marker="o",
        markersize=9,
        linestyle="none",
    )


def roofline_plot(plan: Plan) -> Plot:
    """Returns the operations of a step under the roof of what the device computes and moves."""
    machine = plan.study.machine
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
        axis.plot([left, ridge, right], [left * moves, computes, computes], color=colour("ink"), linewidth=1.4)
        _beside(axis, f"{short(units.flops(computes))}/s", (right, computes), by=(0, 4), ha="right")
        _beside(axis, f"{units.bytes_(moves)}/s", (ridge / 12, computes / 12), by=(-5, 3), ha="right")
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
            far = [one for one in named if (_done(one) / one.moved_bytes >= ridge / 8) == under]
            _name(axis, far, step=step, moves=moves, under=under)
        scaled(axis, x=lambda value: f"{value:g}", y=lambda value: f"{short(units.flops(value))}/s")
        axis.set_xlabel("operations for each byte moved")

    told = "; ".join(f"{one.label} {units.percent(one.seconds / step)} of the time, {one.bound}" for one in shown)
    shared = " They are those of one row on a device that does all of the work." if plan.study.job else ""
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
        x = max(max(at[0] for at in dots.values()) + 0.12, roof + 0.02)
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


def loss_plot(plan: Plan) -> Plot:
    """Returns the loss by the size of the model, at the plan's operations."""
    title = "Larger or smaller, with the same operations"
    points = curves.iso_flops(plan)
    if not points or plan.predicted_loss is None:
        return Plot(title=title, svg="", caption=" ".join(plan.explain("predicted_loss").notes))
    params, tokens, least = curves.best_size(plan)
    loss = plan.predicted_loss

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        axis.plot([size for size, _ in points], [at for _, at in points], color=colour("blue"))
        axis.plot([params], [least], marker="o", markersize=6, linestyle="none", color=colour("green"))
        axis.plot([plan.params], [loss], marker="o", markersize=9, linestyle="none", color=colour("orange"))
        top = max(at for _, at in points)
        for at, height, hue, text, side in (
            (params, least, "green", f"least: {units.count(params)}", -1),
            (plan.params, loss, "orange", f"the plan: {units.count(plan.params)}", 1),
        ):
            axis.annotate(
                text,
                (at, height),
                xytext=(0, 22 * side if side > 0 else -16),
                textcoords="offset points",
                ha="center",
                color=colour(hue),
            )
        axis.set_ylim(least - 0.12 * (top - least), None)
        axis.set_xscale("log")
        scaled(axis, x=lambda value: short(units.count(value)), y=lambda value: f"{value:.2f}")
        axis.set_xlabel("parameters, on as many tokens as the operations allow")
        axis.set_ylabel("nats per token")

    told = f"Loss by parameters: the plan {loss:.3f}, the least {least:.3f} at {units.count(params)} parameters"
    each = plan.tokens / plan.params
    return Plot(
        title=title,
        svg=drawing(draw, height=2.9, name="loss", told=told),
        caption=f"By the law of Besiroglu et al. 2024, the least loss with as many operations is {least:.3f}: "
        f"{units.count(params)} parameters on {units.count(tokens)} tokens. The plan comes to {loss:.3f} with "
        f"{each:.3g} tokens for each parameter; a smaller model on more of them is cheaper to run afterwards.",
    )


def places_plot(plan: Plan) -> Plot:
    """Returns the carbon of the plan's energy, by place."""
    title, found, grid = "Carbon by place", curves.carbon_by_place(plan), plan.study.grid
    if not found or plan.energy_kwh is None:
        what = "Nobody says what this machine draws, so its energy is not known: give --watts (watts= in Python)."
        return Plot(title=title, svg="", caption=what)
    large = found[-1][1] >= 1e4
    scale, unit = (1e3, "t") if large else (1.0, "kg")

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        names = [one.name for one, _ in found]
        amounts = [kg / scale for _, kg in found]
        hues = [colour("orange" if grid is not None and one.name == grid.name else "blue") for one, _ in found]
        axis.barh(names, amounts, color=hues, height=0.7)
        for place, amount in enumerate(amounts):
            text = f"{amount:,.0f}" if amount >= 10 else f"{amount:.3g}"
            axis.annotate(text, (amount, place), xytext=(4, 0), textcoords="offset points", va="center")
        axis.invert_yaxis()
        axis.set_xlim(0, 1.15 * amounts[-1])
        axis.grid(axis="y", visible=False)
        axis.margins(y=0.02)
        scaled(axis, x=lambda value: short(units.count(value)))
        axis.set_xlabel(f"{unit} of CO2 equivalent")

    told = ", ".join(f"{one.name} {kg / scale:,.3g} {unit}" for one, kg in found)
    money = "What an hour of a device costs is not known; give --usd-per-hour."
    if plan.cost_usd is not None:
        money = f"The {plan.cost_usd:,.0f} USD are the same everywhere: they are the price of the devices' hours."
    return Plot(
        title=title,
        svg=drawing(draw, height=0.5 + 0.2 * len(found), name="places", told=f"Carbon by place: {told}"),
        caption=f"{units.count(plan.energy_kwh)} kWh, with each place's mean over a year. {money}",
    )


def layouts_plot(plan: Plan) -> Plot | None:
    """Returns the fastest layouts that fit, by what their steps take; None for one device."""
    tried = layouts_tried(plan)
    if not tried:
        return None
    chosen = plan.study.memory
    shown = tried[:LAYOUTS]
    if isinstance(chosen, Laid) and chosen.layout not in [laid.layout for laid in shown]:
        shown = [*shown[: LAYOUTS - 1], chosen]
    pieces = {
        "computing": ("blue", [laid.compute_seconds for laid in shown]),
        "exchange": ("orange", [laid.exchange_seconds for laid in shown]),
        "pipeline's bubble": ("grey", [laid.bubble_share * laid.step_seconds for laid in shown]),
        "update": ("green", [laid.update_seconds for laid in shown]),
    }

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        before = [0.0] * len(shown)
        for name, (hue, values) in pieces.items():
            axis.barh(range(len(shown)), values, left=before, color=colour(hue), height=0.7, label=name)
            before = [a + b for a, b in zip(before, values, strict=True)]
        for place, laid in enumerate(shown):
            axis.annotate(
                f"{_seconds(laid.step_seconds)}, {laid.peak_bytes / 2**30:.0f} GiB",
                (before[place], place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
            )
        mark = [" ●" if isinstance(chosen, Laid) and laid.layout == chosen.layout else "" for laid in shown]
        axis.set_yticks(range(len(shown)), [_short(laid) + m for laid, m in zip(shown, mark, strict=True)])
        axis.invert_yaxis()
        axis.set_xlim(0, 1.5 * max(before))
        axis.grid(axis="y", visible=False)
        axis.margins(y=0.02)
        scaled(axis, x=_seconds)
        figure.legend(loc="outside upper left", ncols=4, frameon=False, handlelength=0.9, columnspacing=1.0)

    told = "; ".join(f"{laid.layout}: {units.duration(laid.step_seconds)}" for laid in shown)
    return Plot(
        title="Layouts that fit, the fastest first",
        svg=drawing(draw, height=0.75 + 0.23 * len(shown), name="layouts", told=f"Time of a step by layout: {told}"),
        caption=f"{units.several(len(tried), 'layout')} of {plan.devices:,} devices fit; the plan's has the dot. DP "
        "replicas, TP devices for each matrix, PP stages, CP devices for a row; mb rows of a micro-batch, Z stage of "
        "ZeRO, x rounds of the pipeline; sel or full: what the backward makes again.",
    )


def _short(laid: Laid) -> str:
    one = laid.layout
    sizes = [("DP", one.dp), ("TP", one.tp), ("PP", one.pp), ("CP", one.cp)]
    named = " ".join(f"{name}{size}" for name, size in sizes if size > 1 or name == "DP")
    again = {"none": "", "selective": " sel", "full": " full"}[one.recompute]
    return f"{named} mb{one.micro} Z{one.zero}" + (f" x{one.rounds}" if one.rounds > 1 else "") + again


def _seconds(value: float) -> str:
    if value == 0:
        return "0"
    if value < 1:
        return f"{1e3 * value:.3g} ms"
    return f"{value:.3g} s" if value < 120 else units.duration(value)


def _round_ticks(axis: Axes, *, few: bool) -> None:
    """Ticks of a logarithmic axis at 1, 2, 5, 10, ... where it spans few decades, else at 1, 10, ..."""
    from matplotlib.ticker import LogLocator

    axis.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5) if few else (1,), numticks=9))


def short(text: str) -> str:
    """Returns a figure without zeros behind its point: ``1 PFLOP`` for ``1.00 PFLOP``."""
    return re.sub(r"(\d)\.0+(?=\D|$)", r"\1", text)


def _in_bytes(axis: Axes, side: str) -> None:
    """Numbers of an axis in powers of two."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    if side == "y":
        axis.yaxis.set_major_locator(LogLocator(base=2, numticks=6))
        scaled(axis, y=lambda value: short(units.bytes_(value)))
        return
    most = axis.get_xlim()[1]
    unit = 1024.0 ** int(math.log(most, 1024))
    ticks = [tick * unit for tick in MaxNLocator(5).tick_values(0, most / unit) if tick * unit <= most]
    axis.set_xticks(ticks)
    scaled(axis, x=lambda value: short(units.bytes_(value)))
