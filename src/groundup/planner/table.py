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
    fits = "fits" if plan.fits else "DOES NOT FIT"
    steps = f"{plan.steps:,} of {plan.accumulate} x {plan.micro_batch} x {plan.context} tokens"
    rows = [
        ("parameters", units.count(plan.params), f"{plan.params:,}"),
        *((f"  {part}", units.count(count), "") for part, count in plan.params_by_part.items()),
        ("training tokens", units.count(plan.tokens), f"{plan.tokens / plan.params:.3g} for each parameter"),
        ("steps", units.count(plan.steps), steps),
        *(
            [("loss", f"{plan.predicted_loss:.2f}", "nats per token of Chinchilla's text")]
            if plan.predicted_loss is not None
            else []
        ),
        ("operations", units.flops(plan.train_flops), f"{plan.petaflop_s_days:.3g} petaflop/s-days"),
        ("  forward, per token", units.flops(plan.forward_flops_per_token), ""),
        ("  training, per token", units.flops(plan.train_flops_per_token), ""),
        ("peak memory", units.bytes_(plan.peak_bytes), f"{fits} in {units.bytes_(plan.memory_bytes)}"),
        ("  weights", units.bytes_(plan.weights_bytes), "float32"),
        ("  optimizer", units.bytes_(plan.optimizer_bytes), ""),
        ("  gradients", units.bytes_(plan.gradients_bytes), "float32; they come as activations go"),
        ("  copies of weights", units.bytes_(plan.copies_bytes), plan.precision),
        ("  activations", units.bytes_(plan.activations_bytes), ""),
        ("  logits and loss", units.bytes_(plan.logits_bytes), ""),
        ("  allocator", units.bytes_(plan.slack_bytes), ""),
        ("  program", units.bytes_(plan.process_bytes), ""),
        ("time of a step", units.duration(plan.step_seconds), f"{units.count(plan.tokens_per_second)} tokens/s"),
        (
            "time of training",
            units.duration(plan.train_seconds),
            f"{units.percent(plan.utilisation)} of the matrix rate",
        ),
        *([("energy", f"{plan.energy_kwh:.3g} kWh", "")] if plan.energy_kwh is not None else []),
        ("state when generating", units.bytes_(plan.state_bytes), f"a row of {plan.context} tokens"),
    ]
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    lines = [f"{name:<{widths[0]}}  {figure:>{widths[1]}}  {note}".rstrip() for name, figure, note in rows]
    said = [
        textwrap.fill(sentence, WIDTH, initial_indent="- ", subsequent_indent="  ") for sentence in plan.assumptions
    ]
    return "\n".join([f"on {plan.machine}, products in {plan.precision}", *lines, "", "assumed:", *said])
