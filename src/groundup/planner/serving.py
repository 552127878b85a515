"""What generating with a model will take: memory, time to the first token and for each, how many texts fit.

    plan = plan_serving("llama-3.1-8b", context=8192, batch=16, on="A100-80GB")
    print(plan)
    plan_serving("mixtral-8x7b", weights="q4_0", on="2xRTX-4090", region="FR").co2_kg_per_million_tokens

What the engine of groundup does for a prompt and for a token is gone through without memory (decoding.py), and timed
as training steps are. What it cannot do yet is told by the formulas of the field (engine.py); ``assumptions`` says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from groundup.devices import best
from groundup.errors import ConfigError, nearest
from groundup.hub import resolve
from groundup.hub.tensors import stored_in
from groundup.infer.load import DTYPES
from groundup.model.decoder import Decoder
from groundup.model.encoder_decoder import EncoderDecoder
from groundup.model.model import Model
from groundup.planner import books, grids, hardware, serving_table, units, weight_formats
from groundup.planner.engine import MOST_ROWS, Engine
from groundup.planner.hardware import Device
from groundup.planner.machine import Machine, calibrate
from groundup.planner.published import carbon_kg
from groundup.planner.serving_assumptions import SOURCES, assumptions

USUAL_CONTEXT = 2**13  # where nobody says how long texts are
USUAL_SOURCE = 2**9
CONTEXTS = tuple(4**power for power in range(5, 12))  # of the table
MILLION = 1e6


@dataclass(frozen=True, kw_only=True)
class Point:
    """What a step takes at some batch and context.

    Attributes:
        batch: texts side by side.
        context: tokens of each.
        token_seconds: of the step.
        tokens_per_second: of all texts.
        state_bytes: of all rows, on each device.
        peak_bytes: on each device.
        fits: whether that is below 90% of the device's memory.
        most_batch: how many texts of this context fit; None where that was not asked.
    """

    batch: int
    context: int
    token_seconds: float
    tokens_per_second: float
    state_bytes: int
    peak_bytes: int
    fits: bool
    most_batch: int | None = None


@dataclass(frozen=True, kw_only=True)
class ServingPlan:
    """What generating with a model will take; the units are in the names. Bytes are those of each device.

    Attributes:
        params: parameters, exact.
        active_params: those that take part in each token.
        batch: texts side by side.
        context: tokens of each, its prompt included; of encoder-decoders, of the target.
        prompt: tokens of each prompt; of encoder-decoders, of the source.
        precision: the type of products, state and weights.
        weights: the format of weights that are held in fewer bits; None where all are in the precision.
        devices: how many there are, which share each matrix.
        weights_bytes: of those that stay on the device.
        offloaded_bytes: of those that wait in the host's memory.
        state_bytes: of all rows, with room for the context.
        state_bytes_per_row: of one.
        regrouping_bytes: of the state that is copied when a text ends before the others.
        activations_bytes: what comes and goes at most, mostly while prompts are read.
        logits_bytes: float32, of which activations are more.
        slack_bytes: what the allocator cannot use.
        process_bytes: the program itself.
        peak_bytes: the most that is held at once.
        memory_bytes: of the device.
        fits: whether the peak is below 90% of that.
        most_batch: how many texts of this context fit at once.
        first_token_seconds: from the prompts to the first token of each.
        token_seconds: of the step that fills the context, the longest.
        first_step_seconds: of the step after the prompts.
        tokens_per_second: of all texts, at the longest step.
        tokens_per_second_each: of one text.
        prompt_tokens_per_second: read.
        step_flops: operations of a step.
        step_weights_bytes: read by a step of all weights, on all devices.
        step_state_bytes: read and written by a step of the state, on all devices.
        bound: what most of a step's time goes to: ``memory``, ``products``, ``launches``, ``exchange`` between devices
            or ``host``, the host's memory.
        step_parts_seconds: the step's time by these.
        bandwidth_share: what a step reads of weights and state, as a share of what the memory could bring meanwhile.
        utilisation: a step's operations as a share of the matrix rate.
        by_batch: steps at other batches.
        by_context: steps at other contexts.
        energy_kwh_per_million_tokens: written, at the power that the devices draw; None where nobody knows it.
        co2_kg_per_million_tokens: of that energy; None without a region or an energy.
        cost_usd_per_million_tokens: written, at the longest step; None where nobody says what an hour costs.
        cost_usd_per_million_prompt_tokens: read.
        machine: the device's name.
        assumptions: what was assumed, in sentences.
        sources: where rules and constants come from.
    """

    params: int
    active_params: int
    batch: int
    context: int
    prompt: int
    precision: str
    weights: str | None
    devices: int
    weights_bytes: int
    offloaded_bytes: int
    state_bytes: int
    state_bytes_per_row: int
    regrouping_bytes: int
    activations_bytes: int
    logits_bytes: int
    slack_bytes: int
    process_bytes: int
    peak_bytes: int
    memory_bytes: int
    fits: bool
    most_batch: int
    first_token_seconds: float
    token_seconds: float
    first_step_seconds: float
    tokens_per_second: float
    tokens_per_second_each: float
    prompt_tokens_per_second: float
    step_flops: float
    step_weights_bytes: int
    step_state_bytes: int
    bound: str
    step_parts_seconds: dict[str, float]
    bandwidth_share: float
    utilisation: float
    by_batch: tuple[Point, ...]
    by_context: tuple[Point, ...]
    energy_kwh_per_million_tokens: float | None
    co2_kg_per_million_tokens: float | None
    cost_usd_per_million_tokens: float | None
    cost_usd_per_million_prompt_tokens: float | None
    machine: str
    assumptions: tuple[str, ...]
    sources: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns the plan as plain data: numbers, texts, lists."""
        lists = ("by_batch", "by_context", "assumptions", "sources")
        return {name: list(value) if name in lists else value for name, value in asdict(self).items()}

    def __str__(self) -> str:
        """Returns the plan as a table with people's units."""
        return serving_table.text(self)


def plan_serving(
    model: Model | str | Path,
    *,
    context: int | None = None,
    batch: int = 1,
    prompt: int | None = None,
    on: Machine | str = "this",
    precision: str | None = None,
    weights: str | None = None,
    offload: bool = False,
    watts: float | None = None,
    usd_per_hour: float | None = None,
    region: str | None = None,
    tables: bool = True,
) -> ServingPlan:
    """Returns what generating with a model will take.

    Args:
        model: any MODEL, such as a spec or the name of a preset.
        context: tokens of a text, its prompt included; None means the model's context, up to 8,192.
        batch: texts side by side.
        prompt: tokens of a prompt, below the context; None means half of it. Of encoder-decoders, tokens of the source;
            None means up to 512.
        on: ``this`` machine, measured; a `Machine`; or published devices, such as ``8xH100-SXM``, which then share each
            matrix.
        precision: ``bf16``, ``fp16`` or ``fp32``, in which the weights are held; None or ``auto`` means the type in
            which they are stored, or, without a file of them, bf16 where it is native.
        weights: a format with fewer bits a weight, such as ``int8``, ``int4`` or ``q4_k``; None means none.
        offload: whether layers that do not fit wait in the host's memory.
        watts: what each device draws; None means what it was designed for, if that is published.
        usd_per_hour: what an hour of each device costs; None means what it cost when that was last looked up.
        region: whose electricity it is, such as ``FR``; None means that nobody says.
        tables: whether other batches and contexts are planned beside the one that is asked for.

    Raises:
        ModelError: there is no such model.
        ConfigError: a figure is not positive, a text is longer than the model's context, the model does not write, or
            there is no such device, format, precision or region, or the devices cannot share the model.
    """
    _check(int, "a whole number", batch=batch, context=context, prompt=prompt)
    _check(int | float, "a number", watts=watts, usd_per_hour=usd_per_hour)
    found = resolve.find(model)
    spec = found.spec
    if not isinstance(spec, Decoder | EncoderDecoder):
        raise ConfigError(f"{type(spec).__name__} writes no text token by token; plan its training, without serving")
    if batch > MOST_ROWS:
        raise ConfigError(f"batch={batch:,} is more than is planned for; choose up to {MOST_ROWS:,}")
    machine, count, device = _site(on)
    engine = Engine(
        spec=spec,
        machine=machine,
        dtype=_dtype(precision, machine, device, found),
        device=device,
        devices=count,
        format=None if weights is None else weight_formats.find(weights),
        offload=offload,
    )
    engine.check()
    grid = None if region is None else grids.find(region)
    length, read = _lengths(spec, context, prompt)
    draws = watts or (None if device is None else device.watts)
    price = usd_per_hour or (None if device is None else device.usd_per_hour)
    made = _figures(engine, batch=batch, context=length, prompt=read, tables=tables)
    each = count * made["token_seconds"] / batch * MILLION / 3600  # hours of devices for a million tokens
    energy = None if draws is None else each * draws / 1000
    carbon = None if energy is None or grid is None else carbon_kg(kwh=energy, grams_per_kwh=grid.grams_per_kwh)
    of_prompts = count * made["first_token_seconds"] / (batch * read) * MILLION / 3600
    name = f"{machine.processor}, {units.several(machine.cores, 'core')}" if device is None else device.name
    return ServingPlan(
        batch=batch,
        context=length,
        prompt=read,
        energy_kwh_per_million_tokens=energy,
        co2_kg_per_million_tokens=carbon,
        cost_usd_per_million_tokens=None if price is None else each * price,
        cost_usd_per_million_prompt_tokens=None if price is None else of_prompts * price,
        machine=f"{count:,} x {name}" if count > 1 else name,
        assumptions=assumptions(
            engine, grid, batch=batch, watts=draws, usd_per_hour=price, context=context, prompt=prompt, read=read
        ),
        sources=SOURCES if engine.format is None else (*SOURCES, f"{engine.format.name}: {engine.format.source}."),
        **made,
    )


def _figures(engine: Engine, *, batch: int, context: int, prompt: int, tables: bool) -> dict[str, Any]:
    """What a plan says that hangs on the engine alone."""
    given = {"prompt": prompt, "context": context}
    held, most = engine.held(rows=batch, **given), engine.most_rows(near=batch, **given)
    first, last = engine.prefill(rows=batch, **given), engine.decode(rows=batch, **given)
    step = engine.writing(rows=batch, **given)
    early = context if isinstance(engine.spec, EncoderDecoder) else prompt + 1
    read = engine.as_held_bytes(step) + step.state_bytes
    share = read / engine.devices / last.seconds / engine.bandwidth_bytes_per_second
    rate = engine.devices * engine.matrix_rate
    return {
        "params": books.params(engine.spec),
        "active_params": books.active_params(engine.spec),
        "precision": str(engine.dtype).removeprefix("torch."),
        "weights": None if engine.format is None else engine.format.name,
        "devices": engine.devices,
        **asdict(held),
        "state_bytes_per_row": round(held.state_bytes / batch),
        "logits_bytes": 4 * batch * engine.spec.predictor.vocab,
        "peak_bytes": held.peak_bytes,
        "memory_bytes": engine.machine.memory_bytes,
        "fits": held.peak_bytes <= engine.usable_bytes,
        "most_batch": most,
        "first_token_seconds": first.seconds,
        "token_seconds": last.seconds,
        "first_step_seconds": engine.decode(rows=batch, prompt=prompt, context=early).seconds,
        "tokens_per_second": batch / last.seconds,
        "tokens_per_second_each": 1 / last.seconds,
        "prompt_tokens_per_second": batch * prompt / first.seconds,
        "step_flops": step.flops,
        "step_weights_bytes": round(engine.as_held_bytes(step)),
        "step_state_bytes": round(step.state_bytes),
        "bound": last.bound,
        "step_parts_seconds": asdict(last),
        "bandwidth_share": share,
        "utilisation": step.flops / last.seconds / rate,
        "by_batch": tuple(_point(engine, rows, **given) for rows in (_batches(batch, most) if tables else ())),
        "by_context": tuple(_contexts(engine, batch=batch, **given) if tables else ()),
    }


def _batches(batch: int, most: int) -> Sequence[int]:
    """The batches of the table: powers of two up to what fits, and the one that is asked for."""
    powers = [2**power for power in range(max(most, 1).bit_length())]
    return sorted({*powers, batch, max(most, 1)})


def _contexts(engine: Engine, *, batch: int, context: int, prompt: int) -> Iterator[Point]:
    """The same batch at other contexts, up to the model's."""
    longest = engine.spec.longest
    for length in sorted({*(n for n in CONTEXTS if n < longest), context, longest}):
        read = prompt if isinstance(engine.spec, EncoderDecoder) else min(prompt, length - 1)
        yield _point(engine, batch, prompt=max(read, 1), context=length, asks_most=True)


def _point(engine: Engine, rows: int, *, prompt: int, context: int, asks_most: bool = False) -> Point:
    held = engine.held(rows=rows, prompt=prompt, context=context)
    step = engine.decode(rows=rows, prompt=prompt, context=context).seconds
    return Point(
        batch=rows,
        context=context,
        token_seconds=step,
        tokens_per_second=rows / step,
        state_bytes=held.state_bytes,
        peak_bytes=held.peak_bytes,
        fits=held.peak_bytes <= engine.usable_bytes,
        most_batch=engine.most_rows(prompt=prompt, context=context, near=rows) if asks_most else None,
    )


def _lengths(spec: Decoder | EncoderDecoder, context: int | None, prompt: int | None) -> tuple[int, int]:
    """Returns the tokens of a text and of a prompt, or refuses them."""
    length = context or min(spec.longest, USUAL_CONTEXT)
    if length > spec.longest:
        raise ConfigError(
            f"context={length} is longer than the model's context of {spec.longest}; lower it, or raise the model's"
        )
    if isinstance(spec, EncoderDecoder):
        most, usual = spec.encoder.longest, min(spec.encoder.longest, USUAL_SOURCE)
        fault = f"is longer than the encoder's context of {most:,}"
    else:
        most, usual = length - 1, length // 2
        fault = f"leaves no room for a new token in a context of {length:,}"
    if most < 1:
        raise ConfigError(f"context={length} has no room for a prompt and a new token; give at least 2")
    if prompt is not None and prompt > most:
        raise ConfigError(f"prompt={prompt} {fault}; give up to {most:,}")
    return length, prompt or usual


def _site(on: Machine | str) -> tuple[Machine, int, Device | None]:
    if isinstance(on, Machine):
        return on, 1, None
    if on == "this":
        return calibrate(), 1, None
    count, device = hardware.parse(on)
    return device.machine(), count, device


def _dtype(precision: str | None, machine: Machine, device: Device | None, found: resolve.Found) -> torch.dtype:
    """The type in which the weights are held: as `groundup.load` has it, or what is best there."""
    if precision not in (None, "auto"):
        if precision not in DTYPES:
            hint = nearest(str(precision), DTYPES) or f"choose from {', '.join(DTYPES)}"
            raise ConfigError(f"precision={precision!r} does not exist; {hint}")
        return DTYPES[precision]
    if found.weights is not None:
        sizes: Counter[torch.dtype] = Counter()
        for tensor in stored_in(found.weights).values():
            sizes[tensor.dtype] += torch.Size(tensor.shape).numel()
        return sizes.most_common(1)[0][0]
    return getattr(torch, device.best) if device is not None else best(torch.device(machine.device))


def _check(kinds: Any, what: str, **figures: float | None) -> None:
    for name, figure in figures.items():
        wrong = isinstance(figure, bool) or not isinstance(figure, kinds) or not 0 < figure < float("inf")
        if figure is not None and wrong:
            raise ConfigError(f"{name}={figure!r} must be {what} above 0")
