"""What training a model will take: parameters, operations, memory, time, before anything is spent.

    plan = plan("gpt2", tokens=2e9, context=1024)
    print(plan)
    plan("llama-3-8b", tokens=15e12, on="1024xH100-SXM", region="FR").co2_kg

Parameters and operations are counted (books.py), memory is what a step rehearsed without memory holds (rehearsal.py,
memory.py), time is what its operations take at the rates measured on this machine (machine.py, time.py) or reached of
those published (hardware.py). Several devices share the work by a layout (layout.py). Whatever was assumed is said in
``assumptions``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Any

import torch

from groundup.devices import autocast_dtype
from groundup.errors import ConfigError
from groundup.hub.resolve import spec as resolve
from groundup.model.decoder import Decoder
from groundup.model.model import Model
from groundup.objectives.objective import Objective, Shape
from groundup.optim.optimizers import AdamW, Optimizer
from groundup.planner import books, grids, hardware, table, units
from groundup.planner import layout as layouts
from groundup.planner.assumptions import (
    BATCH_TOKENS,
    CHINCHILLA_TOKENS_PER_PARAM,
    SHARED_CONTEXT,
    SOURCES,
    assumptions,
    usual_batch,
)
from groundup.planner.hardware import Device
from groundup.planner.layout import Job, Laid, Layout, fastest, lay
from groundup.planner.machine import Machine, calibrate
from groundup.planner.memory import Memory, training_memory
from groundup.planner.published import carbon_kg, energy_kwh
from groundup.planner.rehearsal import Part, rehearse
from groundup.planner.scaling import BESIROGLU, FLOPS_PER_PARAM_TOKEN, LEAST_FLOPS, PETAFLOP_S_DAY
from groundup.planner.time import IN_A_STEP, step_seconds
from groundup.specs import LARGEST

MICRO_BATCH_TOKENS = {"cpu": 2**13}  # enough for large products; more only take memory
MICRO_BATCH_TOKENS_ELSEWHERE = 2**16
USABLE_SHARE = 0.9  # of the device's memory; the rest is the system's
MOST_TOKENS = 2**24  # of a micro-batch: a device that held the activations of more is not built


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What training a model will take; the units are in the names.

    Attributes:
        params: parameters, exact.
        active_params: those that take part in each token.
        embedding_params: those of tables that are looked up.
        params_by_part: exact.
        tokens: to train on.
        context: tokens of a row.
        micro_batch: rows of a micro-batch.
        accumulate: micro-batches of a step.
        batch_tokens: tokens of a step.
        steps: updates of the weights.
        precision: the type of matrix products.
        forward_flops_per_token: operations of the forward.
        train_flops_per_token: operations of forward and backward.
        step_flops: operations of a step's forwards and backwards.
        train_flops: of all of the training.
        petaflop_s_days: the same in days at a thousand million million operations per second.
        weights_bytes: float32.
        gradients_bytes: float32.
        optimizer_bytes: the optimizer's state.
        copies_bytes: the weights in the type of the products, kept by autocast during a step.
        activations_bytes: what the forward keeps for the backward, the copies not counted.
        logits_bytes: what the loss needs at most.
        process_bytes: the program itself.
        slack_bytes: what the allocator cannot use.
        state_bytes: of one row of ``context`` tokens when generating, in the type of the products.
        peak_bytes: the most that is held at once on the device.
        memory_bytes: of the device.
        fits: whether the peak is below 90% of that.
        devices: how many there are; the bytes above are those of the fullest.
        layout: how they share the work, by the names of `groundup.planner.layout.Layout`; None for one device.
        utilisation: operations per second as a share of the measured matrix rate, or of the published one.
        step_seconds: of one step.
        train_seconds: of all steps.
        tokens_per_second: of training.
        energy_kwh: at the assumed power; None without one.
        co2_kg: what the energy comes with in the region; None without a region or an energy.
        cost_usd: of the devices' hours; None where nobody says what one costs.
        chinchilla_tokens: the tokens that make the best use of the operations, 20 for each parameter.
        predicted_loss: nats per token of the text and vocabulary of Hoffmann et al. 2022, by the replication of their
            law (Besiroglu et al. 2024); None for what does not predict the next token, for mixtures of experts, which
            no such run had, and for fewer operations than the least of the runs that the law was fitted to.
        machine: the processor's name.
        assumptions: what was assumed, in sentences.
        sources: where rules and constants come from.
    """

    params: int
    active_params: int
    embedding_params: int
    params_by_part: dict[str, int]
    tokens: int
    context: int
    micro_batch: int
    accumulate: int
    batch_tokens: int
    steps: int
    precision: str
    forward_flops_per_token: float
    train_flops_per_token: float
    step_flops: float
    train_flops: float
    petaflop_s_days: float
    weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    copies_bytes: int
    activations_bytes: int
    logits_bytes: int
    process_bytes: int
    slack_bytes: int
    state_bytes: int
    peak_bytes: int
    memory_bytes: int
    fits: bool
    devices: int
    layout: dict[str, Any] | None
    utilisation: float
    step_seconds: float
    train_seconds: float
    tokens_per_second: float
    energy_kwh: float | None
    co2_kg: float | None
    cost_usd: float | None
    chinchilla_tokens: int
    predicted_loss: float | None
    machine: str
    assumptions: tuple[str, ...]
    sources: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns the plan as plain data: numbers, texts, lists."""
        lists = {"assumptions": list(self.assumptions), "sources": list(self.sources)}
        return asdict(self) | lists

    def __str__(self) -> str:
        """Returns the plan as a table with people's units."""
        return table.plan_text(self)


def plan(
    model: Model | str | Path,
    *,
    tokens: float | None = None,
    batch_tokens: float | None = None,
    rows: int | None = None,
    context: int | None = None,
    precision: str | None = None,
    on: Machine | str = "this",
    layout: str = "auto",
    optimizer: Optimizer = AdamW(),  # noqa: B008 - a spec is a value
    objective: Objective | None = None,
    watts: float | None = None,
    usd_per_hour: float | None = None,
    region: str | None = None,
    process_bytes: int | None = None,
) -> Plan:
    """Returns what training a model will take.

    Args:
        model: any MODEL, such as a spec or the name of a preset.
        tokens: to train on; None means 20 for each parameter.
        batch_tokens: of a step; None means one micro-batch where ``rows`` is given, else 0.5M; on several devices, what
            DeepSeek's law says, up to 16M.
        rows: of a micro-batch; None means as many as fit, up to 8,192 tokens on a processor.
        context: tokens of a row; None means the model's context; on several devices, up to 8,192 of them.
        precision: ``bf16`` or ``fp32`` for the matrix products; None or ``auto`` means bf16 where it is native.
        on: ``this`` machine, measured; a `Machine`; or published devices, such as ``8xH100-SXM`` or ``2xmine.toml``.
        layout: how several devices share the work, such as ``dp=64,tp=8,pp=2``; ``auto`` takes the fastest that fits.
        optimizer: what updates the weights.
        objective: what is learnt, which says how long texts and targets are; None: each token has a target, and each
            target a source as long where there is one.
        watts: what each device draws under load; None means what it was designed for, if that is published.
        usd_per_hour: what an hour of each device costs; None means what it cost when that was last looked up.
        region: whose electricity it is, such as ``FR``, ``US-CA`` or ``gcp:europe-west4``; None means that nobody says.
        process_bytes: what the program holds before it trains, if that is more than a bare training process.

    Raises:
        ModelError: there is no such model.
        ConfigError: a figure is not positive, the context is longer than the model's, the model cannot learn the
            objective, or there is no such device, layout or region.
    """
    _check_positive(
        int | float, tokens=tokens, batch_tokens=batch_tokens, watts=watts, usd_per_hour=usd_per_hour, most=10**30
    )
    _check_positive(int, rows=rows, context=context, most=LARGEST)
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(f"optimizer={optimizer!r} is no optimizer; give one, such as AdamW(lr=3e-4)")
    spec = resolve(model)
    if objective is not None:
        objective.check(spec)
    site, grid = _site(on), None if region is None else grids.find(region)
    params, active = books.params(spec), books.active_params(spec)
    length = _length(spec, context, devices=site.devices)
    shape = Shape.even(length) if objective is None else objective.shape(spec, length)
    if (rows or 1) * shape.text > MOST_TOKENS:
        raise ConfigError(
            f"rows={rows} of {shape.text:,} tokens are more than any device holds at once; choose rows up to "
            f"{max(MOST_TOKENS // shape.text, 1):,}, and more micro-batches for a larger step"
        )
    dtype = site.dtype(precision)
    rehearsal = _Rehearsal(
        parts=partial(rehearse, spec, shape=shape, dtype=dtype, optimizer=optimizer, device=site.machine.device),
        machine=site.machine,
        process_bytes=process_bytes,
    )
    text = tokens or CHINCHILLA_TOKENS_PER_PARAM * params
    wanted = batch_tokens or (rows * shape.text if rows and site.devices == 1 else 0)
    wanted = wanted or max(usual_batch(params, text) if site.devices > 1 else BATCH_TOKENS, shape.text)
    if site.devices == 1:
        _check_alone(layout)
        step = _alone(rehearsal, site, shape, wanted=wanted, rows=rows)
    else:
        step = _shared(spec, rehearsal, site, shape, wanted=wanted, rows=rows, layout=layout)
    batch = step.batch_rows * shape.text
    steps = math.ceil(text / batch)
    per_token = books.train_flops(spec, shape) / shape.text
    train_flops, train_seconds = per_token * steps * batch, step.seconds * steps
    name = str(dtype).removeprefix("torch.")
    hours = site.devices * train_seconds / 3600
    watts, usd_per_hour = watts or site.watts, usd_per_hour or site.usd_per_hour
    energy = None if watts is None else energy_kwh(device_hours=hours, watts=watts)
    return Plan(
        params=params,
        active_params=active,
        embedding_params=books.embedding_params(spec),
        params_by_part=books.params_by_part(spec),
        tokens=steps * batch,
        context=length,
        batch_tokens=batch,
        steps=steps,
        precision=name,
        forward_flops_per_token=books.forward_flops(spec, shape) / shape.text,
        train_flops_per_token=per_token,
        step_flops=per_token * batch,
        train_flops=train_flops,
        petaflop_s_days=train_flops / PETAFLOP_S_DAY,
        state_bytes=books.state_bytes(spec, rows=1, max_len=length, dtype=dtype),
        memory_bytes=site.machine.memory_bytes,
        devices=site.devices,
        utilisation=per_token * batch / step.seconds / site.devices / site.rate(name),
        step_seconds=step.seconds,
        train_seconds=train_seconds,
        tokens_per_second=batch / step.seconds,
        energy_kwh=energy,
        co2_kg=None if energy is None or grid is None else carbon_kg(kwh=energy, grams_per_kwh=grid.grams_per_kwh),
        cost_usd=None if usd_per_hour is None else hours * usd_per_hour,
        chinchilla_tokens=CHINCHILLA_TOKENS_PER_PARAM * params,
        predicted_loss=_predicted_loss(spec, objective, tokens=steps * batch),
        machine=site.name,
        assumptions=assumptions(
            site.device,
            grid,
            devices=site.devices,
            kind=site.machine.device,
            tokens=tokens,
            batch_tokens=batch_tokens,
            rows=rows,
            context=context,
            watts=watts,
        ),
        sources=SOURCES,
        **step.figures(),
    )


@dataclass(frozen=True, kw_only=True)
class _Site:
    """Where a run is planned: how many devices of which rates; published figures where they are not at hand."""

    machine: Machine
    devices: int = 1
    device: Device | None = None

    @property
    def name(self) -> str:
        if self.device is None:
            return f"{self.machine.processor}, {units.several(self.machine.cores, 'core')}"
        return f"{self.devices:,} x {self.device.name}" if self.devices > 1 else self.device.name

    @property
    def watts(self) -> float | None:
        return None if self.device is None else self.device.watts

    @property
    def usd_per_hour(self) -> float | None:
        return None if self.device is None else self.device.usd_per_hour

    def dtype(self, precision: str | None) -> torch.dtype:
        """The type of the products."""
        precision = precision or "auto"
        if self.device is not None and precision == "auto":
            return getattr(torch, self.device.best)
        return autocast_dtype(precision, torch.device(self.machine.device))

    def rate(self, dtype: str) -> float:
        """The most operations per second in a type: measured, or published."""
        if self.device is None:
            return self.machine.matrix_rate(dtype)
        rates = self.device.flops_per_second
        return rates.get(dtype, max(rates.get(name, 0.0) for name in ("float32", "bfloat16")))


@dataclass(frozen=True, kw_only=True)
class _Step:
    """A step as it is planned."""

    micro: int
    accumulate: int
    batch_rows: int
    seconds: float
    memory: Memory | Laid
    layout: Layout | None = None
    fits: bool

    def figures(self) -> dict[str, Any]:
        """What a plan says of it."""
        names = ("weights", "gradients", "optimizer", "copies", "activations", "logits", "process", "slack", "peak")
        held = {f"{name}_bytes": getattr(self.memory, f"{name}_bytes", 0) for name in names}
        layout = None if self.layout is None else asdict(self.layout)
        return held | {"micro_batch": self.micro, "accumulate": self.accumulate, "fits": self.fits, "layout": layout}


def _check_alone(layout: str) -> None:
    taken = 1 if layout == "auto" else layouts.parse(layout).devices
    if taken != 1:
        raise ConfigError(f"layout={layout!r} takes {taken:,} devices, and there is 1; name more, as in --on 8xH100")


def _alone(rehearsal: _Rehearsal, site: _Site, shape: Shape, *, wanted: float, rows: int | None) -> _Step:
    """A step on one device, as groundup runs it."""
    micro = rows or rehearsal.rows(most=max(1, min(int(wanted), _micro_tokens(site.machine)) // shape.text))
    accumulate = max(1, round(wanted / (micro * shape.text)))
    memory = rehearsal.memory(micro, accumulate=accumulate)
    slower = IN_A_STEP if site.device is None else 1.0
    return _Step(
        micro=micro,
        accumulate=accumulate,
        batch_rows=micro * accumulate,
        seconds=step_seconds(rehearsal.parts(rows=micro), site.machine, accumulate=accumulate, slower=slower),
        memory=memory,
        fits=memory.peak_bytes <= USABLE_SHARE * site.machine.memory_bytes,
    )


def _shared(
    spec: Model, rehearsal: _Rehearsal, site: _Site, shape: Shape, *, wanted: float, rows: int | None, layout: str
) -> _Step:
    """A step that several devices share."""
    if not isinstance(spec, Decoder) or site.device is None:
        raise ConfigError("several devices are planned for decoders alone yet; plan for one of them")
    job = Job(
        parts=rehearsal.parts(rows=1),
        layers=len(spec.layers),
        width=spec.width,
        heads=books.shared_heads(spec),
        context=shape.text,
        rows=max(1, round(wanted / shape.text)),
        machine=site.machine,
        device=site.device,
    )
    if layout == "auto":
        laid = fastest(job, devices=site.devices, micro=rows)[0]
    else:
        chosen = layouts.parse(layout)
        chosen = chosen if rows is None else replace(chosen, micro=rows)
        layouts.check(job, chosen, devices=site.devices)
        laid = lay(job, chosen)
    return _Step(
        micro=laid.layout.micro,
        accumulate=job.rows // (laid.layout.dp * laid.layout.micro),
        batch_rows=job.rows,
        seconds=laid.step_seconds,
        memory=laid,
        layout=laid.layout,
        fits=laid.fits,
    )


@dataclass(frozen=True, kw_only=True)
class _Rehearsal:
    """The rehearsed step as a function of the rows of a micro-batch."""

    parts: Callable[..., tuple[Part, ...]]
    machine: Machine
    process_bytes: int | None

    def memory(self, rows: int, *, accumulate: int) -> Memory:
        return training_memory(
            self.parts(rows=rows),
            device=self.machine.device,
            accumulate=accumulate,
            process_bytes=self.process_bytes,
        )

    def rows(self, *, most: int) -> int:
        """The largest power of two that fits, up to ``most``; 1 where nothing fits."""
        most = 2 ** int(math.log2(most))
        usable = USABLE_SHARE * self.machine.memory_bytes
        peak = self.memory(most, accumulate=2).peak_bytes
        if most == 1 or peak <= usable:
            return most
        least = self.memory(1, accumulate=2).peak_bytes  # memory grows in a straight line with the rows
        room = 1 + (usable - least) * (most - 1) / (peak - least)
        return 2 ** int(math.log2(max(room, 1)))


def _predicted_loss(spec: Model, objective: Objective | None, *, tokens: int) -> float | None:
    params = books.params(spec)
    dense_decoder = isinstance(spec, Decoder) and (objective is None or objective.whole)
    dense_decoder = dense_decoder and books.active_params(spec) == params
    known = FLOPS_PER_PARAM_TOKEN * params * tokens >= LEAST_FLOPS
    return BESIROGLU.loss(params, tokens) if dense_decoder and known else None


def _length(spec: Model, context: int | None, *, devices: int) -> int:
    length = context or (min(spec.longest, SHARED_CONTEXT) if devices > 1 else spec.longest)
    if length > spec.longest:
        raise ConfigError(
            f"context={length} is longer than the model's context of {spec.longest}; lower it, or raise the model's"
        )
    return length


def _site(on: Machine | str) -> _Site:
    if isinstance(on, Machine):
        return _Site(machine=on)
    if on == "this":
        return _Site(machine=calibrate())
    count, device = hardware.parse(on)
    return _Site(machine=device.machine(), devices=count, device=device)


def _micro_tokens(machine: Machine) -> int:
    return MICRO_BATCH_TOKENS.get(machine.device, MICRO_BATCH_TOKENS_ELSEWHERE)


def _check_positive(kinds: type | UnionType, *, most: int, **figures: float | None) -> None:
    what = "a whole number" if kinds is int else "a number"
    for name, figure in figures.items():
        if figure is not None and not (isinstance(figure, kinds) and 0 < figure <= most):
            limit = f" and up to {most:,}" if most <= LARGEST else ""
            raise ConfigError(f"{name}={figure!r} must be {what} above 0{limit}")
