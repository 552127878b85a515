"""What a page shows of a plan besides its figures: other shapes of its step, the curve of its loss, other places.

All of it is planned as the plan itself was, so the plan lies on each curve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from groundup.errors import ConfigError
from groundup.planner import grids
from groundup.planner.grids import Grid
from groundup.planner.layout import Laid, lay
from groundup.planner.memory import training_memory
from groundup.planner.published import carbon_kg
from groundup.planner.scaling import BESIROGLU, FLOPS_PER_PARAM_TOKEN
from groundup.planner.time import step_seconds

if TYPE_CHECKING:
    from groundup.planner.plan import Plan

SHORTEST = 16  # tokens of a row
MOST_TOKENS = 2**24  # of a micro-batch
FEWER, MORE = 3, 3  # times that a size is halved, and that it is doubled
SIZES = 61  # of models on the curve of the loss
SPREAD = 12.0  # how much smaller and larger they are than the plan's and the best one
PLACES = ("NO", "SE", "FR", "CA", "BR", "GB", "DE", "US", "JP", "AU", "CN", "PL", "IN", "ZA")


@dataclass(frozen=True, kw_only=True)
class Point:
    """A step of another shape.

    Attributes:
        at: its rows or the tokens of its rows.
        peak_bytes: on each device.
        step_seconds: with as many micro-batches as the plan has.
    """

    at: int
    peak_bytes: int
    step_seconds: float


def by_rows(plan: Plan) -> list[Point]:
    """Returns the plan's step with other rows of a micro-batch."""
    most = MOST_TOKENS // plan.study.shape.text
    return list(_points(plan.micro_batch, most, lambda rows: _step(plan, rows=rows)))


def by_context(plan: Plan) -> list[Point]:
    """Returns the plan's step with rows of other lengths, as far as the model reads them."""
    most = min(plan.study.spec.longest, MOST_TOKENS // plan.micro_batch)
    return list(_points(plan.context, most, lambda tokens: _step(plan, context=tokens), least=SHORTEST))


def _points(middle: int, most: int, step: Callable[[int], Point], *, least: int = 1) -> Iterator[Point]:
    sizes = {middle * 2**power for power in range(MORE + 1)} | {middle // 2**power for power in range(FEWER + 1)}
    for size in sorted(size for size in sizes if min(least, middle) <= size <= max(most, middle)):
        with suppress(ConfigError):  # a row too short for what is learnt
            yield step(size)


def _step(plan: Plan, *, rows: int | None = None, context: int | None = None) -> Point:
    study, micro, at = plan.study, rows or plan.micro_batch, rows or context or 0
    if study.step.job is not None and isinstance(study.step.memory, Laid):
        layout = replace(study.step.memory.layout, micro=micro)
        parts = study.parts(rows=1, context=context)
        read = study.step.job.context if context is None else context
        job = replace(study.step.job, parts=parts, context=read, rows=layout.dp * micro * plan.accumulate)
        laid = lay(job, layout)
        return Point(at=at, peak_bytes=laid.peak_bytes, step_seconds=laid.step_seconds)
    parts = study.parts(rows=micro, context=context)
    memory = training_memory(
        parts,
        device=study.site.machine.device,
        accumulate=plan.accumulate,
        process_bytes=study.asked["process_bytes"],
    )
    seconds = step_seconds(parts, study.site.machine, accumulate=plan.accumulate, slower=study.site.slower)
    return Point(at=at, peak_bytes=memory.peak_bytes, step_seconds=seconds)


def iso_flops(plan: Plan) -> list[tuple[float, float]]:
    """Returns sizes of models with the loss that each reaches with the plan's operations; none where no law holds."""
    if plan.predicted_loss is None:
        return []
    pairs = plan.params * plan.tokens
    best, _ = BESIROGLU.best(FLOPS_PER_PARAM_TOKEN * pairs)
    least, most = min(plan.params, best) / SPREAD, max(plan.params, best) * SPREAD
    sizes = [least * (most / least) ** (step / (SIZES - 1)) for step in range(SIZES)]
    return [(size, BESIROGLU.loss(size, pairs / size)) for size in sizes]


def best_size(plan: Plan) -> tuple[float, float, float]:
    """Returns the parameters, the tokens and the loss that are best with the plan's operations, by the law."""
    params, tokens = BESIROGLU.best(FLOPS_PER_PARAM_TOKEN * plan.params * plan.tokens)
    return params, tokens, BESIROGLU.loss(params, tokens)


def carbon_by_place(plan: Plan) -> list[tuple[Grid, float]]:
    """Returns places with the carbon in kg that the plan's energy comes with there, the least first."""
    if plan.energy_kwh is None:
        return []
    chosen = plan.study.rates.grid
    places = {grid.name: grid for grid in (*map(grids.find, PLACES), *([] if chosen is None else [chosen]))}
    found = [(grid, carbon_kg(kwh=plan.energy_kwh, grams_per_kwh=grid.grams_per_kwh)) for grid in places.values()]
    return sorted(found, key=lambda both: both[1])
