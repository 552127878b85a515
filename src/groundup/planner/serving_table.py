"""A plan of serving as plain text, aligned, in people's units."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from groundup.planner import units
from groundup.planner.table import WIDTH, aligned

if TYPE_CHECKING:
    from groundup.planner.serving import Point, ServingPlan

GOES_TO = {
    "memory": "waiting for memory",
    "products": "products of matrices and other arithmetic",
    "launches": "starting operations",
    "exchange": "exchanges between devices",
    "host": "reading layers from the host's memory",
}


def text(plan: ServingPlan) -> str:
    """Returns a plan as tables, with what was assumed below them."""
    rows = [
        ("parameters", units.count(plan.params), f"{units.count(plan.active_params)} take part in a token"),
        ("texts", f"{plan.batch:,}", f"{plan.context:,} tokens each, of which {plan.prompt:,} are read"),
        *_memory_rows(plan),
        *_time_rows(plan),
        *_bill_rows(plan),
    ]
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    lines = [f"{name:<{widths[0]}}  {figure:>{widths[1]}}  {note}".rstrip() for name, figure, note in rows]
    said = [textwrap.fill(one, WIDTH, initial_indent="- ", subsequent_indent="  ") for one in plan.assumptions]
    held = f", weights in {plan.weights}" if plan.weights else ""
    tables = [("", *_points(points, what)) for points, what in ((plan.by_batch, "texts"), (plan.by_context, "tokens"))]
    beside = [
        line for table, points in zip(tables, (plan.by_batch, plan.by_context), strict=True) if points for line in table
    ]
    return "\n".join([f"on {plan.machine} in {plan.precision}{held}", *lines, *beside, "", "assumed:", *said])


def _memory_rows(plan: ServingPlan) -> Iterator[tuple[str, str, str]]:
    fits, each = "fits" if plan.fits else "DOES NOT FIT", " of each device" if plan.devices > 1 else ""
    yield "peak memory", units.bytes_(plan.peak_bytes), f"{fits} in {units.bytes_(plan.memory_bytes)}{each}"
    away = f"{units.bytes_(plan.offloaded_bytes)} more in the host's memory" if plan.offloaded_bytes else ""
    parts = {
        "weights": (plan.weights_bytes, plan.weights or plan.precision, True),
        "  offloaded": (plan.offloaded_bytes, away and "in the host's memory", False),
        "state": (plan.state_bytes, f"{units.bytes_(plan.state_bytes_per_row)} a text", True),
        "regrouping": (plan.regrouping_bytes, "of states when a text ends; then activations are gone", False),
        "activations": (plan.activations_bytes, f"logits {units.bytes_(plan.logits_bytes)}", True),
        "allocator": (plan.slack_bytes, "", False),
        "program": (plan.process_bytes, "", False),
    }
    for name, (size, note, always) in parts.items():
        if size or always:
            yield f"  {name}", units.bytes_(size), note
    yield "texts that fit", f"{plan.most_batch:,}", f"of {plan.context:,} tokens"


def _time_rows(plan: ServingPlan) -> Iterator[tuple[str, str, str]]:
    read = f"{units.count(plan.prompt_tokens_per_second)} tokens/s read"
    yield "first token after", units.duration(plan.first_token_seconds), read
    written = f"{plan.tokens_per_second_each:.3g} tokens/s a text, {units.count(plan.tokens_per_second)} in all"
    yield "a token each", units.duration(plan.token_seconds), written
    early = units.duration(plan.first_step_seconds)
    yield "  after the prompt", early, ""
    share = plan.step_parts_seconds[plan.bound] / plan.token_seconds
    yield "  goes to", units.percent(share), GOES_TO[plan.bound]
    read = f"weights {units.bytes_(plan.step_weights_bytes)}, state {units.bytes_(plan.step_state_bytes)}"
    yield "  reads", units.bytes_(plan.step_weights_bytes + plan.step_state_bytes), read
    yield "  of the bandwidth", units.percent(plan.bandwidth_share), ""
    yield "  of the matrix rate", units.percent(plan.utilisation), f"{units.flops(plan.step_flops)} a step"


def _bill_rows(plan: ServingPlan) -> Iterator[tuple[str, str, str]]:
    """The lines of what a million tokens take besides time, where that is known."""
    if plan.energy_kwh_per_million_tokens is not None:
        yield "energy", f"{units.count(plan.energy_kwh_per_million_tokens)} kWh", "a million tokens written"
    if plan.co2_kg_per_million_tokens is not None:
        yield "carbon", f"{plan.co2_kg_per_million_tokens:.3g} kg", "CO2 equivalent, a million tokens written"
    if plan.cost_usd_per_million_tokens is not None:
        read = plan.cost_usd_per_million_prompt_tokens or 0.0
        yield "cost", f"{plan.cost_usd_per_million_tokens:,.3g} USD", f"a million tokens; {read:,.3g} USD if read"


def _points(points: Sequence[Point], what: str) -> list[str]:
    """The lines of a table of steps, by the batch or by the context."""
    by_context = what == "tokens"
    header = (what, "a token", "tokens/s", "state", "peak", "fit" if by_context else "")
    rows = [
        (
            f"{point.context if by_context else point.batch:,}",
            units.duration(point.token_seconds),
            units.count(point.tokens_per_second),
            units.bytes_(point.state_bytes),
            units.bytes_(point.peak_bytes),
            f"{point.most_batch:,} texts" if by_context else ("" if point.fits else "does not fit"),
        )
        for point in points
    ]
    return aligned([header, *rows], left=0)
