"""Where the figures of time come from: the operations of a step at the machine's rates, and how devices share them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, get_args

from groundup.planner import units
from groundup.planner.derivation import Derivation, Term
from groundup.planner.figures import derive, own
from groundup.planner.hardware import ATTENTION_SHARE, MEMORY_SHARE, PRODUCT_SHARE
from groundup.planner.layout import Job, Laid, fastest
from groundup.planner.operations import Bound, Operation, operations
from groundup.planner.parallel import HIDDEN, REACHED
from groundup.planner.time import works_seconds

if TYPE_CHECKING:
    from groundup.planner.plan import Plan

LONGEST = 10  # kinds of operations that are listed; the others are one line
ROOFLINE = "a roofline over the operations (time.py): Williams et al. 2009, doi:10.1145/1498765.1498785"


def step_operations(plan: Plan) -> list[Operation]:
    """Returns the operations of a step on one device, those that take longest first."""
    study = plan.study
    parts = study.parts(rows=plan.micro_batch)
    accumulate = plan.accumulate if study.step.job is None else 1
    return operations(parts, study.site.machine, accumulate=accumulate, slower=study.site.slower)


def _step_seconds(plan: Plan) -> Derivation:
    study = plan.study
    if isinstance(study.step.memory, Laid) and study.step.job is not None:
        return _shared_step(plan, study.step.job, study.step.memory)
    forward, backward, update = _passes(plan)
    every = step_operations(plan)
    terms = [
        Term(
            name="slower",
            value=study.site.slower,
            source="operations in a step beside each alone, measured (time.py)"
            if study.site.device is None
            else "published shares say it already",
        ),
        own(plan, "accumulate"),
        Term(name="forward_seconds", value=forward, unit="seconds", source="of a micro-batch"),
        Term(name="backward_seconds", value=backward, unit="seconds", source="of a micro-batch"),
        Term(name="update_seconds", value=update, unit="seconds", source="gradients' norm and optimizer"),
    ]
    return derive(
        plan,
        "step_seconds",
        formula="slower * (accumulate * (forward_seconds + backward_seconds) + update_seconds)",
        terms=terms,
        breakdown=list(_by_kind(every)),
        notes=[_bounds(every)],
        source=f"{ROOFLINE}; {_rates(plan)}",
    )


def _passes(plan: Plan) -> tuple[float, float, float]:
    """The seconds of a micro-batch's forward, of its backward, and of the update."""
    study = plan.study
    parts = study.parts(rows=plan.micro_batch)
    forward, backward, update = (
        sum(part.count * works_seconds(getattr(part, name), study.site.machine) for part in parts)
        for name in ("forward", "backward", "update")
    )
    return forward, backward, update


def _by_kind(every: list[Operation]) -> Iterator[Term]:
    step = sum(one.seconds for one in every)
    for one in every[:LONGEST]:
        what = f"{units.flops(one.flops)}, " if one.flops else ""
        yield Term(
            name=one.label,
            value=one.seconds,
            unit="seconds",
            source=f"{units.percent(one.seconds / step)}; {units.count(round(one.times))} times, {what}"
            f"{units.bytes_(one.moved_bytes)}; held up by {one.bound}",
        )
    rest = every[LONGEST:]
    if rest:
        seconds = sum(one.seconds for one in rest)
        source = f"{units.percent(seconds / step)}; {units.several(len(rest), 'kind')}"
        yield Term(name="others", value=seconds, unit="seconds", source=source)


def _bounds(every: list[Operation]) -> str:
    """What holds the step up, in a sentence."""
    step = sum(one.seconds for one in every)
    shares = {bound: sum(one.seconds for one in every if one.bound == bound) / step for bound in get_args(Bound)}
    return f"Held up by {', '.join(f'{bound}: {units.percent(share)}' for bound, share in shares.items())}."


def _rates(plan: Plan) -> str:
    device = plan.study.site.device
    if device is None:
        return f"rates measured on this machine, {plan.machine}"
    return (
        f"{units.percent(PRODUCT_SHARE)} of the published rate of products, {units.percent(ATTENTION_SHARE)} for "
        f"attention, {units.percent(MEMORY_SHARE)} of the memory's; {device.source or 'a file of your own'}"
    )


def _shared_step(plan: Plan, job: Job, laid: Laid) -> Derivation:
    layout = laid.layout
    waits = laid.exchange_seconds - laid.late_seconds
    terms = [
        Term(
            name="compute_seconds",
            value=laid.compute_seconds,
            unit="seconds",
            source=f"{plan.accumulate:,} micro-batches of a stage, over tp={layout.tp} x cp={layout.cp}; "
            f"recompute={layout.recompute}",
        ),
        Term(
            name="waits_seconds",
            value=waits,
            unit="seconds",
            source=f"sums over tp={layout.tp}, rings over cp={layout.cp}; {units.percent(REACHED)} of the links' rate",
        ),
        Term(
            name="bubble_seconds",
            value=laid.bubble_share * laid.step_seconds,
            unit="seconds",
            source=f"(pp - 1) / rounds = {(layout.pp - 1) / layout.rounds:g} micro-batches in which a stage waits",
        ),
        Term(
            name="late_seconds",
            value=laid.late_seconds,
            unit="seconds",
            source=f"exchange among dp={layout.dp} replicas, zero={layout.zero}, that {units.percent(HIDDEN)} of the "
            "backward does not hide",
        ),
        Term(name="update_seconds", value=laid.update_seconds, unit="seconds", source="gradients' norm and optimizer"),
    ]
    rate = units.flops(job.device.flops_per_second.get(plan.precision, 0.0))
    return derive(
        plan,
        "step_seconds",
        formula=" + ".join(term.name for term in terms),
        terms=terms,
        source=f"layout.py; {ROOFLINE}; {_rates(plan)}",
        notes=[f"A device is published to do {rate} a second in {plan.precision}."],
    )


def _layout(plan: Plan) -> Derivation:
    """The layout as what makes up the devices, with how the next best one does."""
    laid, job = plan.study.step.memory, plan.study.step.job
    if not isinstance(laid, Laid) or job is None:
        one = Term(name="devices", value=plan.devices, source="does all of the work")
        return Derivation(figure="layout", value=plan.devices, unit="devices", terms=(one,), source="one device")
    sizes = {
        "dp": "replicas, which read rows of their own",
        "tp": "devices that share each matrix",
        "pp": "stages of layers",
        "cp": "devices that share a row's tokens",
    }
    chosen = laid.layout
    terms = [Term(name=name, value=getattr(chosen, name), source=what) for name, what in sizes.items()]
    tried = layouts_tried(plan)
    better = [other for other in tried if other.layout != chosen]
    notes = [f"micro={chosen.micro}, zero={chosen.zero}, rounds={chosen.rounds}, recompute={chosen.recompute}"]
    if plan.study.asked["layout"] == "auto" and better:
        slower = better[0].step_seconds / laid.step_seconds - 1
        notes.append(
            f"It is the fastest of {len(tried):,} that fit; the next, {better[0].layout}, is {slower:.1%} slower."
        )
    return Derivation(
        figure="layout",
        value=plan.devices,
        unit="devices",
        formula="dp * tp * pp * cp",
        terms=tuple(terms),
        source="tried and sorted by the time of a step (layout.py)",
        meaning="How the devices share the work.",
        notes=tuple(notes),
    )


def layouts_tried(plan: Plan) -> list[Laid]:
    """Returns the layouts of the plan's devices that fit, the fastest first; none for one device."""
    job = plan.study.step.job
    return [] if job is None else fastest(job, devices=plan.devices, micro=plan.study.asked["rows"])


def _utilisation(plan: Plan) -> Derivation:
    device = plan.study.site.device
    source = "published" if device is not None else "the best that was measured here"
    rate = Term(
        name="matrix_rate",
        value=plan.study.matrix_rate,
        unit="operations",
        source=f"a second, products of matrices in {plan.precision}: {source}",
    )
    return derive(
        plan,
        "utilisation",
        formula="step_flops / step_seconds / devices / matrix_rate",
        terms=[own(plan, "step_flops"), own(plan, "step_seconds"), own(plan, "devices"), rate],
        source="model FLOPs utilisation: Chowdhery et al. 2022 (PaLM, arXiv:2204.02311), appendix B",
    )


def _train_seconds(plan: Plan) -> Derivation:
    return derive(
        plan,
        "train_seconds",
        formula="step_seconds * steps",
        terms=[own(plan, "step_seconds"), own(plan, "steps")],
        source="steps alone: no data loading, saving or evaluation",
    )


def _tokens_per_second(plan: Plan) -> Derivation:
    return derive(
        plan,
        "tokens_per_second",
        formula="batch_tokens / step_seconds",
        terms=[own(plan, "batch_tokens"), own(plan, "step_seconds")],
        source="of all devices together",
    )


EXPLAIN_TIME: dict[str, Callable[[Plan], Derivation]] = {
    "step_seconds": _step_seconds,
    "train_seconds": _train_seconds,
    "tokens_per_second": _tokens_per_second,
    "utilisation": _utilisation,
    "layout": _layout,
}
