"""What fits in so much memory: of a model, how it trains there; without one, the largest LLaMA that trains, or runs.

Nothing is tried on a device: each way is planned, and fits where its peak is at most 90% of the memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from groundup.errors import ConfigError
from groundup.hub.resolve import spec as resolve
from groundup.model.decoder import Decoder
from groundup.model.model import Model
from groundup.optim.optimizers import AdamW, Muon, Optimizer
from groundup.planner import books, hardware, units
from groundup.planner.assumptions import BATCH_TOKENS
from groundup.planner.budget import DESIGN
from groundup.planner.hardware import USABLE_SHARE, Device
from groundup.planner.machine import Machine, calibrate
from groundup.planner.memory import PROCESS_BYTES
from groundup.planner.plan import Plan, plan
from groundup.planner.sizing import fitted
from groundup.planner.table import aligned
from groundup.planner.ways import SHORTEST, most_rows

SIZE = re.compile(r"(?P<number>[\d.]+(?:e\+?\d+)?)\s*(?P<unit>[kmgt]i?b?|b)?", re.IGNORECASE)
MOST_BYTES = 2**50
MOST_TOKENS = 2**17  # of a micro-batch: more make no product faster
LEAST_PARAMS = 1e6  # of a LLaMA that is worth a plan
ROUNDS = 5  # of finding a size: memory grows with it in nearly a straight line
CLOSE = 0.97  # of the room, from which on a size is taken
ADAM_BYTES = 16  # for each parameter, in float32
HALF_BYTES = 2  # for each parameter that is run


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A way to train or to run in the memory.

    Attributes:
        what: ``train`` or ``run``.
        settings: what differs from the usual, as settings.
        params: of the model.
        layers: of the model.
        width: of the model.
        rows: of a micro-batch.
        context: tokens of a row.
        peak_bytes: at most held at once.
        tokens_per_second: of training; None where it is run.
        trainable: whether groundup can do so; otherwise it is planned alone.
    """

    what: str
    settings: str
    params: int
    layers: int
    width: int
    rows: int
    context: int
    peak_bytes: int
    tokens_per_second: float | None
    trainable: bool


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What fits in so much memory.

    Attributes:
        memory_bytes: that there is.
        machine: whose rates the times are of.
        choices: of a model, the fastest first; without one, the largest models.
        largest: of a model, the choice with the most tokens in a micro-batch; None without one.
    """

    memory_bytes: int
    machine: str
    choices: tuple[Choice, ...]
    largest: Choice | None

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain data."""
        return asdict(self) | {"choices": [asdict(choice) for choice in self.choices]}

    def __str__(self) -> str:
        """Returns a table."""
        rows = [("", "parameters", "layers x width", "rows x context", "peak", "tokens/s", "")]
        rows += [
            (
                f"{choice.what} {choice.settings}".rstrip(),
                units.count(choice.params),
                f"{choice.layers} x {choice.width}",
                f"{choice.rows} x {choice.context}",
                units.bytes_(choice.peak_bytes),
                "" if choice.tokens_per_second is None else units.count(choice.tokens_per_second),
                self._said(choice),
            )
            for choice in self.choices
        ]
        room = units.bytes_(self.memory_bytes)
        notes = f"90% of the memory are counted on; what is marked * groundup cannot do yet; times on {self.machine}"
        return "\n".join([f"what fits in {room}", *aligned(rows), "", notes])

    def _said(self, choice: Choice) -> str:
        said = ["*"] if not choice.trainable else []
        if self.largest is not None:
            said += ["fastest"] if choice is self.choices[0] else []
            said += ["largest micro-batch"] if choice is self.largest else []
        return ", ".join(said)


def parse_size(text: str | float) -> int:
    """Returns bytes: ``24GB`` are 24e9, ``24GiB`` 24 x 2^30, a number alone is bytes.

    Raises:
        ConfigError: it is no size, none at all, or more than any device has.
    """
    found = SIZE.fullmatch(str(text).strip())
    with_unit = "give one such as 24GB, 24GiB or 24e9"
    try:
        number = float(found["number"]) if found else math.nan
    except ValueError:
        number = math.nan
    unit = ((found and found["unit"]) or "").lower().rstrip("b")
    scale = (1024 if unit.endswith("i") else 1000) ** ("kmgt".index(unit[0]) + 1) if unit else 1
    if not 0 < number * scale < math.inf:
        raise ConfigError(f"fit={text!r} is no size of a memory; {with_unit}")
    if number * scale > MOST_BYTES:
        raise ConfigError(f"fit={text!r} is more than any device has; {with_unit}")
    return round(number * scale)


def fit(
    model: Model | str | Path | None, memory: str | float, *, on: Machine | Device | str = "this", **settings: Any
) -> Fit:
    """Returns what fits in so much memory.

    Args:
        model: what is trained, any MODEL; None means the largest LLaMA that can be.
        memory: of the device, as `parse_size` reads it.
        on: whose rates count, and whose kind of memory it is.
        **settings: as `groundup.planner.plan.plan` takes them.

    Raises:
        ConfigError: the size cannot be read, is less than the program itself takes, or nothing fits in it.
    """
    room = parse_size(memory)
    there = _with_memory(on, room)
    program = max(PROCESS_BYTES.values())
    if room * USABLE_SHARE <= program:
        raise ConfigError(
            f"fit={memory!r} is less than the program itself takes, {units.bytes_(program)} of at most 90% of it; give "
            f"{units.bytes_(program / USABLE_SHARE)} and more"
        )
    again = partial(plan, on=there, ways="none", **({"tokens": 1, "batch_tokens": BATCH_TOKENS} | settings))
    choices = list(_largest(again, there, room) if model is None else _ways(resolve(model), again, there, settings))
    if not choices:
        raise ConfigError(
            f"nothing fits in {units.bytes_(room)}; choose a smaller model (--fit without one tells the "
            "largest), or give more"
        )
    name = there.name if isinstance(there, Device) else there.processor
    if model is None:
        return Fit(memory_bytes=room, machine=name, choices=tuple(choices), largest=None)
    choices.sort(key=lambda choice: (choice.context, choice.tokens_per_second or 0.0), reverse=True)
    largest = max(choices, key=lambda choice: choice.rows * choice.context)
    return Fit(memory_bytes=room, machine=name, choices=tuple(choices), largest=largest)


def _with_memory(on: Machine | Device | str, room: int) -> Machine | Device:
    if isinstance(on, str):
        if on == "this":
            on = calibrate()
        else:
            count, on = hardware.parse(on)
            if count > 1:
                raise ConfigError(f"fit asks what one device holds; give on={on.name!r} alone")
    return replace(on, memory_bytes=room)


def _ways(model: Model, again: partial[Plan], there: Machine | Device, settings: dict[str, Any]) -> Iterator[Choice]:
    """The ways in which a model trains: all that keep its context, or what is left of it."""
    context = settings.get("context") or model.longest
    while True:
        found = list(_of_context(model, partial(again, context=context), there, settings))
        if found or context // 2 < SHORTEST:
            yield from found
            return
        context //= 2


def _of_context(
    model: Model, again: partial[Plan], there: Machine | Device, settings: dict[str, Any]
) -> Iterator[Choice]:
    given: Optimizer = settings.get("optimizer", AdamW())
    optimizers = {str(given.to_dict()["kind"]).lower(): given}
    optimizers |= {"muon": Muon()} if isinstance(given, AdamW) else {}
    hosts = (False, True) if isinstance(there, Device) and there.device == "cuda" else (False,)
    precisions = [settings.get("precision") or "auto", *(["bf16"] if settings.get("precision") == "fp32" else [])]
    for precision, (name, optimizer), away, how in product(
        precisions, optimizers.items(), hosts, ("none", "selective", "layers")
    ):
        if away and not isinstance(optimizer, AdamW):
            continue
        try_ = partial(again, model, checkpointing=how, offload=away, optimizer=optimizer, precision=precision)
        context = again.keywords["context"]
        made = most_rows(try_, most=max(1, MOST_TOKENS // context))
        if made is not None:
            said = {"optimizer": name, "checkpointing": how} | ({"precision": precision} if precision != "auto" else {})
            text = " ".join(f"{key}={value}" for key, value in said.items()) + (" offload" if away else "")
            yield _chosen(model, made, text)


def _chosen(model: Model, made: Plan, settings: str) -> Choice:
    return Choice(
        what="train",
        settings=settings,
        params=made.params,
        layers=sum(len(stack.layers) for stack in model.stacks.values()),
        width=model.predictor.width,
        rows=made.micro_batch,
        context=made.context,
        peak_bytes=made.peak_bytes,
        tokens_per_second=made.tokens_per_second,
        trainable=made.checkpointing == "none" and not made.offload,
    )


def _largest(again: partial[Plan], there: Machine | Device, room: int) -> Iterator[Choice]:
    """The largest LLaMAs: trained as groundup does, with what it cannot do yet, and run."""
    hosts = [{}, {"offload": True}] if isinstance(there, Device) and there.device == "cuda" else [{}]
    for option in ({}, *({"checkpointing": "layers"} | host for host in hosts)):
        train = partial(again, **({"rows": 1} | option))
        design = _fitting(lambda spec, train=train: train(spec).peak_bytes, room, each=ADAM_BYTES)
        if design is not None:
            text = " ".join(name if value is True else f"{name}={value}" for name, value in option.items())
            yield _chosen(design, train(design), text)
    context = again.keywords.get("context") or DESIGN.context
    run = partial(_running_bytes, context=context, kind=there.device)
    design = _fitting(run, room, each=HALF_BYTES)
    if design is not None:
        yield Choice(
            what="run",
            settings="in 16 bits",
            params=books.params(design),
            layers=len(design.layers),
            width=design.width,
            rows=1,
            context=context,
            peak_bytes=run(design),
            tokens_per_second=None,
            trainable=True,
        )


def _running_bytes(spec: Decoder, *, context: int, kind: str) -> int:
    """The weights in 16 bits, the state of a row, and the logits of its next token; on a processor, the program."""
    state = books.state_bytes(spec, rows=1, max_len=context, dtype=torch.bfloat16)
    return HALF_BYTES * books.params(spec) + state + 4 * spec.vocab + PROCESS_BYTES.get(kind, 0)


def _fitting(measure: Any, room: int, *, each: float) -> Decoder | None:
    """The largest LLaMA of which a figure is at most the room that counts; None where the least has too much."""
    usable = USABLE_SHARE * room
    params, best = usable / each, None
    low, high = LEAST_PARAMS, math.inf
    for _ in range(ROUNDS):
        if params < LEAST_PARAMS:
            break
        design = fitted(DESIGN, target=params, measure=books.params, vocab=DESIGN.vocab, context=DESIGN.context)
        taken, size = measure(design), books.params(design)
        if taken <= usable:
            low, best = max(low, size), max(filter(None, (best, design)), key=books.params)
            if taken >= CLOSE * usable:
                break
        else:
            high = min(high, size)
        straight = params * usable / taken * (1 + CLOSE) / 2
        params = straight if low < straight < high else (low + high) / 2 if high < math.inf else straight
    return best
