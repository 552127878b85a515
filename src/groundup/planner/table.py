"""Plans and trees as plain text, aligned, in people's units."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from groundup.planner import units
from groundup.planner.books import Node

if TYPE_CHECKING:
    from groundup.planner.plan import Plan

WIDTH = 100  # of the assumptions' lines
WAYS = 3  # out of what does not fit that are printed


def aligned(rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """Returns the lines of a table: so many columns to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(_pad(row, widths, left=left)).rstrip() for row in rows]


def _pad(row: Sequence[str], widths: Sequence[int], *, left: int) -> Iterator[str]:
    for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.ljust(width) if place < left else cell.rjust(width)


def tree_lines(root: Node, *, tokens: int) -> list[str]:
    """Returns the lines of a model's tree: each module with its shape, parameters, operations and state.

    Figures are those of all copies together: of twelve equal layers for the line ``0-11``.

    Args:
        root: the tree.
        tokens: of the rows for which it was made.
    """
    header = ("module", "shape", "parameters", "forward per token", f"state of {tokens:,} tokens")
    return aligned([header, *_branch(root, depth=0, copies=1)])


def _branch(node: Node, *, depth: int, copies: int) -> Iterator[tuple[str, ...]]:
    copies *= node.count
    times = f" x {node.count}" if node.count > 1 else ""
    yield (
        "  " * depth + " ".join(filter(None, (node.name, node.kind))) + times,
        " x ".join(map(str, node.shape)),
        f"{copies * node.params:,}" if node.params else "",
        units.flops(copies * node.flops_per_token) if node.flops_per_token else "",
        units.bytes_(copies * node.state_bytes) if node.state_bytes else "",
    )
    for child in node.children:
        yield from _branch(child, depth=depth + 1, copies=copies)


def plan_text(plan: Plan) -> str:
    """Returns a plan as a table, with what was assumed below it."""
    shared = f"{plan.layout['dp']} x " if plan.layout else ""
    steps = f"{plan.steps:,} of {plan.accumulate} x {shared}{plan.micro_batch} x {plan.context} tokens"
    loss = plan.predicted_loss
    rows = [
        ("parameters", units.count(plan.params), f"{plan.params:,}"),
        *((f"  {part}", units.count(count), "") for part, count in plan.params_by_part.items()),
        ("training tokens", units.count(plan.tokens), f"{plan.tokens / plan.params:.3g} for each parameter"),
        ("steps", units.count(plan.steps), steps),
        *([] if loss is None else [("loss", f"{loss:.2f}", f"nats per token of Chinchilla's text{_between(plan)}")]),
        ("operations", units.flops(plan.train_flops), f"{plan.petaflop_s_days:.3g} petaflop/s-days"),
        ("  forward, per token", units.flops(plan.forward_flops_per_token), ""),
        ("  training, per token", units.flops(plan.train_flops_per_token), ""),
        *_memory_rows(plan),
        *([("layout", "", ", ".join(f"{k} {v}" for k, v in plan.layout.items()))] if plan.layout else []),
        ("time of a step", units.duration(plan.step_seconds), f"{units.count(plan.tokens_per_second)} tokens/s"),
        (
            "time of training",
            units.duration(plan.train_seconds),
            f"{units.percent(plan.utilisation)} of the matrix rate",
        ),
        *_bill_rows(plan),
        ("state when generating", units.bytes_(plan.state_bytes), f"a row of {plan.context} tokens"),
    ]
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    lines = [f"{name:<{widths[0]}}  {figure:>{widths[1]}}  {note}".rstrip() for name, figure, note in rows]
    said = [
        textwrap.fill(sentence, WIDTH, initial_indent="- ", subsequent_indent="  ") for sentence in plan.assumptions
    ]
    return "\n".join(
        [f"on {plan.machine}, products in {plan.precision}", *lines, *_choices(plan), "", "assumed:", *said]
    )


def _mass(kg: float) -> str:
    return f"{kg:.3g} kg" if kg < 1000 else f"{units.count(kg / 1000)} t"


def _trade(plan: Plan) -> Iterator[str]:
    """What caps of the power do to the run."""
    rows = [("power of each device", "", "time", "energy", "cost", "carbon")]
    for each in plan.power_trade:
        cost = "" if each.cost_usd is None else f"{each.cost_usd:,.0f} USD"
        carbon = "" if each.co2_kg is None else _mass(each.co2_kg)
        time, energy = units.duration(each.train_seconds), f"{units.count(each.energy_kwh)} kWh"
        rows.append((f"{each.watts_cap:.0f} W", f"{each.share:.0%}", time, energy, cost, carbon))
    yield from ("", *aligned(rows))


def _choices(plan: Plan) -> Iterator[str]:
    """What else there was to choose: layouts that lost, and ways out where nothing fits."""
    if plan.power_trade:
        yield from _trade(plan)
    if plan.runners_up:
        yield from ("", "layouts that lost:", *_listed(plan.runners_up))
    if plan.fits:
        return
    yield from ("", "it does not fit; the cheapest ways out:")
    yield from _listed(plan.ways_out[:WAYS]) if plan.ways_out else _listed(["none is known; choose a smaller model"])
    if len(plan.ways_out) > WAYS:
        yield f"  {len(plan.ways_out) - WAYS} more are told by --json"


def _listed(items: Sequence[object]) -> Iterator[str]:
    for item in items:
        yield textwrap.fill(str(item), WIDTH, initial_indent="- ", subsequent_indent="  ")


def _between(plan: Plan) -> str:
    low, high = plan.predicted_loss_low, plan.predicted_loss_high
    return "" if low is None or high is None else f", {low:.2f} to {high:.2f}"


def _memory_rows(plan: Plan) -> Iterator[tuple[str, str, str]]:
    """The lines of the peak and of what it consists of."""
    fits = "fits" if plan.fits else "DOES NOT FIT"
    each = " of each device" if plan.layout else ""
    yield "peak memory", units.bytes_(plan.peak_bytes), f"{fits} in {units.bytes_(plan.memory_bytes)}{each}"
    parts = {
        "weights": (plan.weights_bytes, "16 bits" if plan.layout else "float32"),
        "optimizer": (plan.optimizer_bytes, "and a copy of the weights in 32 bits" if plan.layout else ""),
        "gradients": (plan.gradients_bytes, "float32" if plan.layout else "float32; they come as activations go"),
        "copies of weights": (plan.copies_bytes, plan.precision),
        "activations": (plan.activations_bytes, ""),
        "logits and loss": (plan.logits_bytes, ""),
        "allocator": (plan.slack_bytes, ""),
        "program": (plan.process_bytes, "what PyTorch and exchanges need" if plan.layout else ""),
    }
    for name, (size, note) in parts.items():
        if size or not plan.layout:
            yield f"  {name}", units.bytes_(size), note


def _bill_rows(plan: Plan) -> Iterator[tuple[str, str, str]]:
    """The lines of what it takes besides time, where that is known."""
    if plan.energy_kwh is not None:
        each = f"{plan.watts:g} W of each device" + (f", PUE {plan.pue:g}" if plan.pue != 1 else "")
        yield "energy", f"{units.count(plan.energy_kwh)} kWh", each
    if plan.co2_kg is not None:
        yield "carbon", _mass(plan.co2_kg), "CO2 equivalent"
    if plan.embodied_kg is not None:
        yield "embodied carbon", _mass(plan.embodied_kg), "CO2 equivalent of making the devices, not in the line above"
    if plan.cost_usd is not None:
        yield "cost", f"{plan.cost_usd:,.2f} USD" if plan.cost_usd < 1000 else f"{plan.cost_usd:,.0f} USD", ""
