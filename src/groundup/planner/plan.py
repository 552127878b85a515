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
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Any, Literal

from groundup.errors import ConfigError
from groundup.hub.resolve import spec as resolve
from groundup.model.decoder import Decoder
from groundup.model.model import Model
from groundup.objectives.objective import Objective, Shape
from groundup.optim.optimizers import AdamW, Optimizer
from groundup.planner import books, grids, power, recompute, table
from groundup.planner.assumptions import (
    BATCH_TOKENS,
    CHINCHILLA_TOKENS_PER_PARAM,
    SHARED_CONTEXT,
    SOURCES,
    assumptions,
    of_power,
    planned_only,
    usual_batch,
)
from groundup.planner.derivation import Derivation
from groundup.planner.explain import explain
from groundup.planner.hardware import Device
from groundup.planner.machine import Machine
from groundup.planner.power import Traded
from groundup.planner.rates import Rates
from groundup.planner.runners_up import RunnerUp
from groundup.planner.scaling import BESIROGLU, FLOPS_PER_PARAM_TOKEN, LEAST_FLOPS, PETAFLOP_S_DAY
from groundup.planner.site import Site
from groundup.planner.step import Rehearsed
from groundup.planner.study import Study
from groundup.planner.ways import Asked, WayOut, ways_out
from groundup.specs import LARGEST

Ways = Literal["all", "here", "none"]
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
        weights_bytes: float32; 16-bit where several devices share the work.
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
        checkpointing: what layers make again in the backward: ``none``, ``selective`` or ``full``.
        offload: whether the optimizer's state lies on the host.
        runners_up: the best layouts of other shapes, each with its figures and why it lost.
        ways_out: where it does not fit, what makes it fit, the cheapest first.
        watts: that each device draws, under the cap if there is one; None where nobody says.
        watts_cap: what it may draw; None without a cap.
        pue: the centre's energy over that of its devices, which is in the energy.
        embodied_kg: the share of the training in what the making of its devices came with, which is in no other
            figure; None where it was not asked for.
        power_trade: where a cap was given, the run under caps of 100% to 50% of what a device draws.
        correction: by what this machine's runs corrected the plan, ``seconds`` and ``slack``; 1 where they did not.
        predicted_loss_low: where the law's floor is as low as 95% of the replication's draws have it; None without one.
        predicted_loss_high: the same of the highest.
        machine: the processor's name.
        assumptions: what was assumed, in sentences.
        sources: where rules and constants come from.
        study: what the plan was made from, for `explain`; not part of its data.
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
    predicted_loss_low: float | None
    predicted_loss_high: float | None
    correction: dict[str, float]
    machine: str
    assumptions: tuple[str, ...]
    sources: tuple[str, ...]
    study: Study = field(repr=False, compare=False)
    checkpointing: str = "none"
    offload: bool = False
    runners_up: tuple[RunnerUp, ...] = ()
    ways_out: tuple[WayOut, ...] = ()
    watts: float | None = None
    watts_cap: float | None = None
    pue: float = 1.0
    embodied_kg: float | None = None
    power_trade: tuple[Traded, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns the plan as plain data: numbers, texts, lists."""
        data = {name: deepcopy(value) for name, value in vars(self).items() if name != "study"}
        names = ("assumptions", "sources", "runners_up", "ways_out", "power_trade")
        return data | {name: [_plain(item) for item in getattr(self, name)] for name in names}

    def explain(self, figure: str) -> Derivation:
        """Returns where a figure comes from: its terms, the formula with the numbers in it, the source.

        Args:
            figure: its name, as `to_dict` has it.

        Raises:
            ConfigError: there is no such figure; the message names the nearest.
        """
        return explain(self, figure)

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
    on: Machine | Device | str = "this",
    layout: str = "auto",
    optimizer: Optimizer = AdamW(),  # noqa: B008 - a spec is a value
    objective: Objective | None = None,
    watts: float | None = None,
    usd_per_hour: float | None = None,
    region: str | None = None,
    process_bytes: int | None = None,
    checkpointing: str | None = None,
    offload: bool = False,
    watts_cap: float | None = None,
    pue: float | None = None,
    embodied: bool = False,
    ways: Ways = "all",
) -> Plan:
    """Returns what training a model will take.

    Args:
        model: any MODEL, such as a spec or the name of a preset.
        tokens: to train on; None means 20 for each parameter.
        batch_tokens: of a step; None means one micro-batch where ``rows`` is given, else 0.5M; on several devices, what
            DeepSeek's law says, up to 16M.
        rows: of a micro-batch; None means as many as fit, up to 8,192 tokens on a processor.
        context: tokens of a row; None means the model's context; on several devices, up to 8,192 of them.
        precision: ``bf16`` or ``fp32`` for the matrix products; None or ``auto`` means bf16 where it is native; of
            published devices that say how fast they are in it, ``fp16`` and ``fp8`` too.
        on: ``this`` machine, measured; a `Machine` or a `Device`; or published devices, such as ``8xH100-SXM`` or
            ``2xmine.toml``.
        layout: how several devices share the work, such as ``dp=64,tp=8,pp=2``; ``auto`` takes the fastest that fits.
        optimizer: what updates the weights.
        objective: what is learnt, which says how long texts and targets are; None: each token has a target, and each
            target a source as long where there is one.
        watts: what each device draws under load; None means what it was designed for, if that is published.
        usd_per_hour: what an hour of each device costs; None means what it cost when that was last looked up.
        region: whose electricity it is, such as ``FR``, ``US-CA`` or ``gcp:europe-west4``; None means that nobody says.
        process_bytes: what the program holds before it trains, if that is more than a bare training process.
        checkpointing: what layers make again in the backward: ``none``, ``layers`` (all but what they read; ``full`` is
            the same) or ``selective`` (all but what products make); None means nothing on one device, and what is
            fastest on several.
        offload: whether the optimizer's state lies in the host's memory; on several devices, ``auto`` may do so too.
        watts_cap: what each device may draw; a cap lowers the power more than it slows the run.
        pue: the centre's energy over that of its devices; None means the cloud's of the region, else 1.
        embodied: whether the carbon of the making of the devices is told, apart from all else.
        ways: which ways out are looked for where it does not fit: ``all``, those that keep to this device, or none.

    Raises:
        ModelError: there is no such model.
        ConfigError: a figure is not positive, the context is longer than the model's, the model cannot learn the
            objective, or there is no such device, layout or region.
    """
    asked = dict(locals())
    _check_positive(int | float, most=10**30, tokens=tokens, batch_tokens=batch_tokens)
    _check_positive(int | float, most=10**30, watts=watts, usd_per_hour=usd_per_hour, watts_cap=watts_cap)
    _check_positive(int, most=LARGEST, rows=rows, context=context)
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(f"optimizer={optimizer!r} is no optimizer; give one, such as AdamW(lr=3e-4)")
    spec = resolve(model)
    if objective is not None:
        objective.check(spec)
    site, grid = Site.of(on, precision), None if region is None else grids.find(region)
    rates = Rates.of(
        site, grid, watts=watts, watts_cap=watts_cap, usd_per_hour=usd_per_hour, pue=pue, embodied=embodied
    )
    params, length = books.params(spec), _length(spec, context, devices=site.devices)
    shape = Shape.even(length) if objective is None else objective.shape(spec, length)
    _check_rows(rows, shape)
    text = tokens or CHINCHILLA_TOKENS_PER_PARAM * params
    wanted = batch_tokens or (rows * shape.text if rows and site.devices == 1 else 0)
    wanted = wanted or max(usual_batch(params, text) if site.devices > 1 else BATCH_TOKENS, shape.text)
    rehearsed = Rehearsed(
        spec=spec,
        shape=shape,
        dtype=site.dtype(precision),
        optimizer=optimizer,
        site=site,
        wanted_tokens=wanted,
        rows=rows,
        process_bytes=process_bytes,
        checkpointing=None if checkpointing is None else recompute.named(checkpointing),
        offload=offload,
    )
    step = rehearsed.step(layout)
    step = replace(step, seconds=step.seconds / rates.speed)
    study = Study(
        rehearsed=rehearsed,
        step=step,
        rates=rates,
        context=length,
        text_tokens=text,
        asked=asked,
        again=partial(_again, asked),
    )
    made = _made(study)
    if made.fits or ways == "none":
        return made
    settled = {"batch_tokens": made.batch_tokens, "rows": step.micro, "context": length, "ways": "none"}
    again = partial(_again, asked | settled)
    looked_for = Asked(made=made, again=again, optimizer=optimizer, device=site.device, settled=ways == "here")
    return replace(made, ways_out=ways_out(looked_for))


def _made(study: Study) -> Plan:
    """The plan of what was studied, without ways out."""
    spec, shape, step, site, rates = study.spec, study.shape, study.step, study.site, study.rates
    params, batch = books.params(spec), step.rows * shape.text
    steps = math.ceil(study.text_tokens / batch)
    per_token = books.train_flops(spec, shape) / shape.text
    train_flops, train_seconds = per_token * steps * batch, step.seconds * steps
    made = Plan(
        params=params,
        active_params=books.active_params(spec),
        embedding_params=books.embedding_params(spec),
        params_by_part=books.params_by_part(spec),
        tokens=steps * batch,
        context=study.context,
        batch_tokens=batch,
        steps=steps,
        precision=study.precision,
        forward_flops_per_token=books.forward_flops(spec, shape) / shape.text,
        train_flops_per_token=per_token,
        step_flops=per_token * batch,
        train_flops=train_flops,
        petaflop_s_days=train_flops / PETAFLOP_S_DAY,
        state_bytes=books.state_bytes(spec, rows=1, max_len=study.context, dtype=study.rehearsed.dtype),
        memory_bytes=site.machine.memory_bytes,
        devices=site.devices,
        utilisation=per_token * batch / step.seconds / site.devices / study.matrix_rate,
        step_seconds=step.seconds,
        train_seconds=train_seconds,
        tokens_per_second=batch / step.seconds,
        chinchilla_tokens=CHINCHILLA_TOKENS_PER_PARAM * params,
        correction=site.correction.figures(),
        machine=site.name,
        assumptions=(
            *site.correction.sentences(),
            *assumptions(
                site.device,
                rates.grid,
                devices=site.devices,
                kind=site.machine.device,
                **{name: study.asked[name] for name in ("tokens", "batch_tokens", "rows", "context")},
                watts=rates.draw,
            ),
            *planned_only(checkpointing=step.checkpointing, offload=step.offload, low=site.low),
            *of_power(watts=rates.watts, watts_cap=rates.watts_cap, pue=rates.pue, embodied=rates.embodied),
        ),
        sources=SOURCES,
        study=study,
        **step.figures(),
        **rates.figures(site.devices * train_seconds / 3600),
        **_predicted_loss(spec, study.asked["objective"], tokens=steps * batch),
    )
    if rates.watts_cap is None or rates.draw is None:
        return made
    return replace(made, power_trade=tuple(power.trade(made, draw=rates.draw, grams_per_kwh=rates.grams_per_kwh)))


def _again(asked: dict[str, Any], **changed: Any) -> Plan:
    """The plan that was asked for, with other arguments."""
    return plan(**{**asked, **changed})


def _plain(item: Any) -> Any:
    return item.to_dict() if isinstance(item, RunnerUp | WayOut | Traded) else item


def _predicted_loss(spec: Model, objective: Objective | None, *, tokens: int) -> dict[str, Any]:
    params = books.params(spec)
    dense_decoder = isinstance(spec, Decoder) and (objective is None or objective.whole)
    dense_decoder = dense_decoder and books.active_params(spec) == params
    known = dense_decoder and FLOPS_PER_PARAM_TOKEN * params * tokens >= LEAST_FLOPS
    low, high = (BESIROGLU.interval(params, tokens) if known else None) or (None, None)
    loss = BESIROGLU.loss(params, tokens) if known else None
    return {"predicted_loss": loss, "predicted_loss_low": low, "predicted_loss_high": high}


def _length(spec: Model, context: int | None, *, devices: int) -> int:
    length = context or (min(spec.longest, SHARED_CONTEXT) if devices > 1 else spec.longest)
    if length > spec.longest:
        raise ConfigError(
            f"context={length} is longer than the model's context of {spec.longest}; lower it, or raise the model's"
        )
    return length


def _check_rows(rows: int | None, shape: Shape) -> None:
    if (rows or 1) * shape.text > MOST_TOKENS:
        raise ConfigError(
            f"rows={rows} of {shape.text:,} tokens are more than any device holds at once; choose rows up to "
            f"{max(MOST_TOKENS // shape.text, 1):,}, and more micro-batches for a larger step"
        )


def _check_positive(kinds: type | UnionType, *, most: int, **figures: float | None) -> None:
    what = "a whole number" if kinds is int else "a number"
    for name, figure in figures.items():
        if figure is not None and not (isinstance(figure, kinds) and 0 < figure <= most):
            limit = f" and up to {most:,}" if most <= LARGEST else ""
            raise ConfigError(f"{name}={figure!r} must be {what} above 0{limit}")
