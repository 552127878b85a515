"""The plots of a plan's page: memory, other shapes, the law of the loss, places, layouts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from groundup.planner import curves, units
from groundup.planner.curves import Point
from groundup.planner.explain_memory import peak
from groundup.planner.explain_time import layouts_tried
from groundup.planner.hardware import USABLE_SHARE
from groundup.planner.layout import Laid
from groundup.planner.memory import Memory
from groundup.planner.plan import Plan
from groundup.recipes.plots import Plot, colour, drawing, scaled, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LAYOUTS = 10  # that are drawn
MOST_TICKS = 6  # of an axis of memory
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


def components(plan: Plan) -> dict[str, int]:
    """Returns what is held at the peak, by component; the sizes add up to the peak."""
    held = {"program": plan.process_bytes, "weights": plan.weights_bytes, "optimizer": plan.optimizer_bytes}
    if isinstance(plan.study.step.memory, Memory):
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
    usable = plan.memory_bytes * (USABLE_SHARE if plan.study.step.job is None else 1.0)
    little = plan.peak_bytes < plan.memory_bytes / 4  # then the device's own size is beyond the edge
    most = 1.8 * plan.peak_bytes if little else 1.06 * max(plan.peak_bytes, plan.memory_bytes)

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        names = ["all", *held]
        before = 0
        for place, (name, size) in enumerate(held.items(), start=1):
            hue = colour(COMPONENTS[name])
            axis.barh([0, place], [size, size], left=before, color=hue, height=[0.86, 0.62])
            inside = before + size > 0.72 * most
            axis.annotate(
                units.bytes_(size),
                (before if inside else before + size, place),
                xytext=(-4 if inside else 4, 0),
                textcoords="offset points",
                ha="right" if inside else "left",
                va="center",
            )
            before += size
        if little:
            axis.annotate(
                f"{units.bytes_(plan.memory_bytes)} →",
                (0.995, 0.0),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="center",
            )
        else:
            axis.axvline(plan.memory_bytes, color=colour("ink"), linewidth=1.4)
        if usable < plan.memory_bytes and not little:
            axis.axvline(usable, color=colour("soft"), linewidth=1.2, linestyle=(0, (3, 2)))
        axis.set_yticks(range(len(names)), names)
        axis.invert_yaxis()
        axis.set_xlim(0, most)
        axis.grid(axis="y", visible=False)
        axis.margins(y=0.02)
        _in_bytes(axis, "x")

    share = plan.peak_bytes / plan.memory_bytes
    told = ", ".join(f"{name} {units.bytes_(size)}" for name, size in held.items())
    verdict, line = "fits" if plan.fits else "does not fit", "" if little else " (the line)"
    return Plot(
        title="Memory at the peak",
        svg=drawing(draw, height=0.55 + 0.27 * len(held), name="memory", told=f"Memory at the peak: {told}"),
        caption=f"{units.bytes_(plan.peak_bytes)} are {units.percent(share)} of the {units.bytes_(plan.memory_bytes)} "
        f"that {'each device' if plan.devices > 1 else 'the device'} has{line}: it {verdict}."
        + (" Dashed: what a run may use of it." if usable < plan.memory_bytes and not little else ""),
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
        upper.set_ylim(0.5 * min(plan.memory_bytes, *peaks), 1.9 * max(plan.memory_bytes, *peaks))
        below = peaks[0] < 0.6 * plan.memory_bytes  # the curve begins there, so there is room above the line
        where, side, up = (0.01, "left", 3) if below else (0.99, "right", -10)
        upper.annotate(
            f"{units.bytes_(plan.memory_bytes)} of the device",
            (where, plan.memory_bytes),
            xycoords=("axes fraction", "data"),
            xytext=(0, up),
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
    title, found, grid = "Carbon by place", curves.carbon_by_place(plan), plan.study.rates.grid
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
    chosen = plan.study.step.memory
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
        axis.set_xlim(0, 1.65 * max(before))
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


def _in_bytes(axis: Axes, side: str) -> None:
    """Numbers of an axis in powers of two."""
    from matplotlib.ticker import LogLocator

    if side == "y":
        axis.yaxis.set_major_locator(LogLocator(base=2, numticks=6))
        scaled(axis, y=lambda value: short(units.bytes_(value)))
        return
    most = axis.get_xlim()[1]
    step = 2.0 ** math.ceil(math.log2(most / MOST_TICKS))
    ticks = [step * place for place in range(int(most / step) + 1)]
    axis.set_xticks(ticks)
    scaled(axis, x=lambda value: short(units.bytes_(value)))
