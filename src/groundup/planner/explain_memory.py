"""Where the figures of memory come from: by component, and by node of the model.

On one device they are sums over the rehearsed parts; on several, the field's formulas of layout.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from groundup.planner import replay, units
from groundup.planner.derivation import Derivation, Term
from groundup.planner.figures import derive, own
from groundup.planner.hardware import USABLE_SHARE
from groundup.planner.layout import Job, Laid, Layout
from groundup.planner.libraries import KERNEL_BYTES, buffer_bytes, kernels
from groundup.planner.memory import LOADED_BYTES, PROCESS_BYTES, SLACK_SHARE, Memory, training_memory
from groundup.planner.parallel import RESERVED_BYTES
from groundup.planner.peak import Peak, peak_of
from groundup.planner.published import MEGATRON_ADAM
from groundup.planner.rehearsal import Part
from groundup.planner.study import part_names

if TYPE_CHECKING:
    from groundup.planner.plan import Plan

REHEARSED = "a step of the model's own parts, rehearsed without memory on PyTorch's meta device (rehearsal.py)"
ZERO = "Rajbhandari et al. 2019 (ZeRO, arXiv:1910.02054), figure 1; 16-bit weights, 32-bit gradients and state"
PIPELINE = (
    "Narayanan et al. 2021 (arXiv:2104.04473), section 2.2; Korthikanti et al. 2022 (arXiv:2205.05198), section 4"
)


def peak(plan: Plan) -> Peak:
    """Returns what is held at the peak of a step of one device."""
    return peak_of(_parts(plan), part_names(plan.study.spec), accumulate=plan.accumulate)


def row_choice(plan: Plan) -> Derivation:
    """Returns why a micro-batch on one device has as many rows."""
    study = plan.study
    row = Term(name="row_tokens", value=study.shape.text, unit="tokens", source="of text in a row")
    step = Term(
        name="step_tokens", value=int(study.rehearsed.wanted_tokens), unit="tokens", source="wanted; see batch_tokens"
    )
    enough = Term(name="enough_tokens", value=study.site.most_tokens, unit="tokens", source="more only take memory")
    most = study.rehearsed.useful_rows
    most_bytes = _held(plan, most).peak_bytes
    if plan.micro_batch == most:
        return derive(
            plan,
            "micro_batch",
            formula="2 ** floor(log2(max(1, floor(min(step_tokens, enough_tokens) / row_tokens))))",
            terms=[step, enough, row],
            source="the largest power of two that fits and is of use",
            notes=[f"With {units.several(most, 'row')} the peak is {units.bytes_(most_bytes)}."],
        )
    chosen = plan.micro_batch
    terms = [Term(name="rows", value=chosen, unit="rows", source="the largest power of two that fits")]
    notes = [f"With {units.several(rows, 'row')} the peak is {units.bytes_(_held(plan, rows).peak_bytes)}, about."
             for rows in (chosen, 2 * chosen)]  # fmt: skip
    source = f"{units.percent(USABLE_SHARE)} of {units.bytes_(plan.memory_bytes)} can be used"
    return derive(plan, "micro_batch", formula="rows", terms=terms, source=source, notes=notes)


def _parts(plan: Plan) -> tuple[Part, ...]:
    return plan.study.parts(rows=plan.micro_batch)


def _held(plan: Plan, rows: int) -> Memory:
    study = plan.study
    return training_memory(
        study.parts(rows=rows),
        device=study.site.machine.device,
        accumulate=2,
        process_bytes=study.asked["process_bytes"],
        replaying=False,
    )


def _nodes(plan: Plan, size: Callable[[Part], int]) -> Iterator[Term]:
    """A figure of the parts, summed up by node."""
    for name, part in zip(part_names(plan.study.spec), _parts(plan), strict=True):
        if size(part):
            yield Term(name=name, value=part.count * size(part), unit="bytes", count=part.count)


def _shared_or_counted(
    figure: str, shared: Callable[[Plan, Job, Layout], Derivation], size: Callable[[Part], int], source: str
) -> Callable[[Plan], Derivation]:
    """The derivation of a figure: a formula where devices share the work, else a sum over nodes."""

    def told(plan: Plan) -> Derivation:
        job = plan.study.step.job
        if job is not None and plan.layout is not None:
            return shared(plan, job, Layout(**plan.layout))
        return derive(plan, figure, terms=list(_nodes(plan, size)), source=source)

    return told


def _each(name: str, value: float, source: str = "bytes of each parameter") -> Term:
    return Term(name=name, value=value, source=source)


def _share(layout: Layout, *, first: int, all_bytes: float, held_bytes: int) -> Term:
    """By how many replicas a state is shared; where experts have fewer of them, in the mean of all weights."""
    if layout.ep > 1 and held_bytes:
        source = f"zero={layout.zero} among dp={layout.dp}, experts among dp / ep={layout.dp // layout.ep}: in the mean"
        return Term(name="shared", value=all_bytes / held_bytes, source=source)
    shared = layout.zero >= first
    source = f"zero={layout.zero} shares it among dp={layout.dp}" if shared else f"zero={layout.zero} leaves it whole"
    return Term(name="shared", value=layout.dp if shared else 1, source=source)


def _params_on_device(plan: Plan, job: Job, layout: Layout) -> Term:
    laid, layers = plan.study.step.memory, units.several(-(-job.layers // layout.pp), "layer")
    assert isinstance(laid, Laid)
    share = f", half of them where pp={layout.pp} stages keep them apart" if layout.pp > 1 else ""
    return Term(
        name="device_params",
        value=laid.params,
        unit="parameters",
        source=f"of the fullest device: {layers} of {units.count(job.each.params)} and the ends of "
        f"{units.count(job.ends.params)}{share}; over tp={layout.tp}",
    )


def _of_device(plan: Plan, job: Job, layout: Layout, *, each: Term, first: int, held_bytes: int) -> list[Term]:
    """What is held of each weight of a device, and by how many replicas it is shared."""
    params = _params_on_device(plan, job, layout)
    all_bytes = (each.value or 0.0) * (params.value or 0.0)
    return [each, params, _share(layout, first=first, all_bytes=all_bytes, held_bytes=held_bytes)]


def _weights(plan: Plan, job: Job, layout: Layout) -> Derivation:
    each = _each("weight_bytes", MEGATRON_ADAM.weights)
    terms = _of_device(plan, job, layout, each=each, first=3, held_bytes=plan.weights_bytes)
    formula = "weight_bytes * device_params / shared"
    if layout.zero == 3 and layout.ep == 1:
        whole = Term(name="layer_params", value=job.each.params / layout.tp, unit="parameters", source="of a layer")
        terms.append(whole)
        formula += " + 2 * weight_bytes * layer_params"
    return derive(plan, "weights_bytes", formula=f"round({formula})", terms=terms, source=ZERO)


def _gradients(plan: Plan, job: Job, layout: Layout) -> Derivation:
    each = _each("gradient_bytes", MEGATRON_ADAM.gradients)
    terms = _of_device(plan, job, layout, each=each, first=2, held_bytes=plan.gradients_bytes)
    return derive(
        plan, "gradients_bytes", formula="round(gradient_bytes * device_params / shared)", terms=terms, source=ZERO
    )


def _optimizer(plan: Plan, job: Job, layout: Layout) -> Derivation:
    if layout.offload:
        return derive(plan, "optimizer_bytes", terms=[], source="it lies in the host's memory: offload=1")
    each = _each("state_bytes", MEGATRON_ADAM.optimizer, "of each parameter: two moments and the weight in 32 bits")
    terms = _of_device(plan, job, layout, each=each, first=1, held_bytes=plan.optimizer_bytes)
    return derive(
        plan, "optimizer_bytes", formula="round(state_bytes * device_params / shared)", terms=terms, source=ZERO
    )


def _activations(plan: Plan, job: Job, layout: Layout) -> Derivation:
    each, batches = job.each, job.rows // (layout.dp * layout.micro)
    kept = {"none": each.kept_bytes, "selective": min(each.kept_bytes, each.made_bytes), "full": job.row_bytes}
    pipelined = 1 + (layout.pp - 1) / (layout.pp * layout.rounds) if layout.rounds > 1 else 1
    terms = [
        own(plan, "micro_batch"),
        Term(name="layers", value=-(-job.layers // layout.pp), source=f"of the fullest of pp={layout.pp} stages"),
        Term(
            name="kept_bytes",
            value=kept[layout.recompute],
            unit="bytes",
            source=f"of a layer and row, recompute={layout.recompute}; {REHEARSED}",
        ),
        Term(name="under_way", value=min(layout.pp, batches) * pipelined, source="micro-batches that a stage holds"),
        Term(
            name="again_bytes",
            value=0 if layout.recompute == "none" else each.kept_bytes,
            unit="bytes",
            source="of the layer that is made again",
        ),
        Term(name="ranks", value=layout.tp * layout.cp, source=f"tp={layout.tp} x cp={layout.cp} share them"),
    ]
    formula = "round(micro_batch * (layers * kept_bytes * under_way + again_bytes) / ranks)"
    return derive(plan, "activations_bytes", formula=formula, terms=terms, source=PIPELINE)


def _logits(plan: Plan, job: Job, layout: Layout) -> Derivation:
    row = Term(
        name="row_bytes", value=job.logits_bytes, unit="bytes", source=f"what the loss of a row needs; {REHEARSED}"
    )
    ranks = Term(name="ranks", value=layout.tp * layout.cp, source="devices that share it")
    terms = [own(plan, "micro_batch"), row, ranks]
    return derive(
        plan, "logits_bytes", formula="round(micro_batch * row_bytes / ranks)", terms=terms, source="layout.py"
    )


def _process(plan: Plan) -> Derivation:
    device = plan.study.site.machine.device
    if plan.study.step.job is not None:
        reserved = Term(name="reserved", value=RESERVED_BYTES, unit="bytes", source="PyTorch, buffers, the allocator")
        return derive(plan, "process_bytes", terms=[reserved], source="assumed of each of several devices (layout.py)")
    if device not in PROCESS_BYTES:
        return derive(plan, "process_bytes", terms=[], source=f"the program has no part in the memory of {device}")
    own_bytes = plan.study.asked["process_bytes"] or 0
    terms = [
        Term(name="bare", value=PROCESS_BYTES[device], unit="bytes", source="a bare training process, measured"),
        Term(name="loaded", value=LOADED_BYTES, unit="bytes", source="what the first steps load, measured"),
        Term(name="program", value=own_bytes, unit="bytes", source="what the program held before, where that is given"),
        Term(name="sizes", value=kernels(_parts(plan)), source="sizes of products in bfloat16, each with its kernels"),
        Term(name="kernel", value=KERNEL_BYTES, unit="bytes", source="what oneDNN keeps of each, measured"),
        Term(name="buffers", value=buffer_bytes(_parts(plan)), unit="bytes", source="MKL's, for products in float32"),
    ]
    return derive(
        plan,
        "process_bytes",
        formula="max(bare, loaded + program) + sizes * kernel + buffers",
        terms=terms,
        source="measured as VmHWM with torch 2.13 on Linux (memory.py, libraries.py)",
    )


def _slack(plan: Plan) -> Derivation:
    study = plan.study
    if not isinstance(study.step.memory, Memory):
        return derive(plan, "slack_bytes", terms=[], source="in process_bytes, where several devices share the work")
    device, memory = study.site.machine.device, study.step.memory
    if device not in SLACK_SHARE:
        return derive(plan, "slack_bytes", terms=[], source=f"none was measured on {device}")
    names = ("weights_bytes", "optimizer_bytes", "step_bytes")
    alive = sum(getattr(memory, name) for name in names)
    corrected = Term(name="corrected", value=plan.correction["slack"], source="by this machine's runs; see correction")
    parts = tuple(Term(name=name, value=getattr(memory, name), unit="bytes") for name in names)
    held = Term(name="alive", value=alive, unit="bytes", source="at the peak", parts=parts)
    grown = replay.grown_bytes(_parts(plan), accumulate=plan.accumulate)
    if grown is None:
        source = "of what is alive: measured on twelve models, glibc 2.36 (memory.py)"
        first = Term(name="slack_share", value=SLACK_SHARE[device], source=source)
        formula = "round(corrected * round(slack_share * alive))"
    else:
        first = Term(name="grown", value=grown, unit="bytes", source="three steps played on glibc's heap (replay.py)")
        formula = "round(corrected * max(grown - alive, 0))"
    return derive(plan, "slack_bytes", formula=formula, terms=[first, held, corrected], source="memory.py")


def _peak(plan: Plan) -> Derivation:
    study = plan.study
    if not isinstance(study.step.memory, Memory):
        names = ["weights", "gradients", "optimizer", "activations", "logits", "process"]
        terms = [own(plan, f"{name}_bytes") for name in names]
        notes = ["It is the fullest device's: a stage of the pipeline with an end of the model."]
        return derive(plan, "peak_bytes", formula=_plus(terms), terms=terms, source="layout.py", notes=notes)
    found = peak(plan)
    step = Term(
        name="step_bytes",
        value=study.step.memory.step_bytes,
        unit="bytes",
        source="what comes and goes in a step",
        parts=found.terms,
    )
    terms = [
        own(plan, "process_bytes"),
        _with_nodes(plan, "weights_bytes", "float32", lambda part: part.gradient_bytes),
        _with_nodes(plan, "optimizer_bytes", "the optimizer's own tensors", lambda part: part.optimizer_bytes),
        step,
        own(plan, "slack_bytes"),
    ]
    return derive(
        plan,
        "peak_bytes",
        formula=_plus(terms),
        terms=terms,
        source=REHEARSED,
        notes=[f"The peak is in {found.where}."],
    )


def _with_nodes(plan: Plan, figure: str, source: str, size: Callable[[Part], int]) -> Term:
    return Term(name=figure, value=getattr(plan, figure), unit="bytes", source=source, parts=tuple(_nodes(plan, size)))


def _plus(terms: Sequence[Term]) -> str:
    return " + ".join(term.name for term in terms)


def _memory(plan: Plan) -> Derivation:
    device = plan.study.site.device
    source = f"published: {device.source or 'a file of your own'}" if device else "asked of this machine's system"
    terms = [Term(name="memory", value=plan.memory_bytes, unit="bytes", source=plan.machine)]
    return derive(plan, "memory_bytes", terms=terms, source=source)


def _fits(plan: Plan) -> Derivation:
    share = USABLE_SHARE if plan.study.step.job is None else 1.0
    why = "the rest is the system's" if plan.study.step.job is None else "the peak holds what is reserved"
    terms = [own(plan, "peak_bytes"), Term(name="usable", value=share, source=why), own(plan, "memory_bytes")]
    return derive(
        plan, "fits", formula="peak_bytes <= usable * memory_bytes", terms=terms, source="memory.py, layout.py"
    )


def _copies(plan: Plan) -> Derivation:
    if plan.study.step.job is not None:
        return derive(plan, "copies_bytes", terms=[], source="weights are in 16 bits themselves: no copies are kept")
    terms = list(_nodes(plan, lambda part: part.cast_bytes))
    notes = ["Autocast keeps them from a layer's forward to its backward."]
    return derive(plan, "copies_bytes", terms=terms, source=REHEARSED, notes=notes)


def _kept(part: Part) -> int:
    """What a part keeps without copies of weights; the loss's own is in the logits, and its copies in the copies."""
    return -part.cast_bytes if part.name == "loss" else part.kept_bytes - part.cast_bytes


EXPLAIN_MEMORY: dict[str, Callable[[Plan], Derivation]] = {
    "weights_bytes": _shared_or_counted(
        "weights_bytes", _weights, lambda part: part.gradient_bytes, f"4 bytes for each parameter; {REHEARSED}"
    ),
    "gradients_bytes": _shared_or_counted(
        "gradients_bytes", _gradients, lambda part: part.gradient_bytes, f"4 bytes for each parameter; {REHEARSED}"
    ),
    "optimizer_bytes": _shared_or_counted(
        "optimizer_bytes", _optimizer, lambda part: part.optimizer_bytes, "the optimizer's own tensors after a step"
    ),
    "copies_bytes": _copies,
    "activations_bytes": _shared_or_counted("activations_bytes", _activations, _kept, REHEARSED),
    "logits_bytes": _shared_or_counted(
        "logits_bytes", _logits, lambda part: part.forward_peak_bytes if part.name == "loss" else 0, REHEARSED
    ),
    "process_bytes": _process,
    "slack_bytes": _slack,
    "peak_bytes": _peak,
    "memory_bytes": _memory,
    "fits": _fits,
}
