"""What to do about a run that does not fit: each way out with its peak and its price, the cheapest first.

First come those that change no result (smaller micro-batches, accumulated; activations made again; the optimizer's
state on the host; another layout), by the time that they cost. Then those that change what is computed (a shorter
context, another optimizer or type), and last other devices, by the money.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from groundup.errors import ConfigError
from groundup.optim.optimizers import AdamW, Muon, Optimizer
from groundup.planner import hardware, units
from groundup.planner.hardware import Device

if TYPE_CHECKING:
    from groundup.planner.plan import Plan

SHORTEST = 128  # tokens of a row
MOST_DEVICES = 1024
DEVICES_TRIED = 3  # of those that are large enough, the cheapest first
USUAL = "H100-SXM"  # of which several are named where no device is large enough
SAME, OTHER, ELSEWHERE = range(3)  # results, other results, other devices


@dataclass(frozen=True, kw_only=True)
class WayOut:
    """A change that makes a run fit.

    Attributes:
        change: what changes, as settings: ``rows=4 accumulate=8``.
        peak_bytes: of each device then.
        step_seconds: of a step then.
        slower: how much longer a token takes than it would where it does not fit, as a share; below 0 if faster.
        cost_usd: of all of the training then; None where nobody says what an hour costs.
        same_results: whether the mathematics of the run stay as they are.
        trainable: whether groundup can train so; otherwise it is planned alone.
    """

    change: str
    peak_bytes: int
    step_seconds: float
    slower: float
    cost_usd: float | None
    same_results: bool
    trainable: bool

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        time = f"{self.slower:.0%} slower" if self.slower > 0 else f"{1 / (1 + self.slower):.3g} times as fast"
        said = [units.bytes_(self.peak_bytes), "as fast" if abs(self.slower) < 0.005 else time]
        said += [] if self.cost_usd is None else [f"{self.cost_usd:,.{0 if self.cost_usd >= 1000 else 2}f} USD"]
        said += [] if self.same_results else ["another result"]
        return f"{self.change}: {', '.join(said)}"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A run that does not fit.

    Attributes:
        made: its plan.
        again: plans it anew with some settings changed, those of `groundup.planner.plan.plan`.
        optimizer: its optimizer.
        device: the published device; None for this machine.
        settled: whether the device is the only one that counts: then no other is named.
    """

    made: Plan
    again: Callable[..., Plan]
    optimizer: Optimizer
    device: Device | None
    settled: bool = False

    def way(self, change: str, plan: Plan, *, kind: int, trainable: bool = True) -> tuple[int, float, WayOut]:
        """Returns a way out with what it is sorted by."""
        slower = (plan.step_seconds / plan.batch_tokens) / (self.made.step_seconds / self.made.batch_tokens) - 1
        way = WayOut(
            change=change,
            peak_bytes=plan.peak_bytes,
            step_seconds=plan.step_seconds,
            slower=slower,
            cost_usd=plan.cost_usd,
            same_results=kind != OTHER,
            trainable=trainable,
        )
        return kind, plan.cost_usd or math.inf if kind == ELSEWHERE else slower, way


def ways_out(asked: Asked) -> tuple[WayOut, ...]:
    """Returns the ways out of a plan that does not fit; none where it does, or where none is known."""
    if asked.made.fits:
        return ()
    found = [*(_alone(asked) if asked.made.layout is None else _shared(asked)), *_otherwise(asked)]
    if not asked.settled:
        found += _elsewhere(asked)
    return tuple(way for *_, way in sorted(found, key=lambda each: each[:2]))


def most_rows(again: Callable[..., Plan], *, most: int) -> Plan | None:
    """Returns the plan of the most rows of a micro-batch that fit, powers of two up to ``most``; None if none do."""
    plan = again(rows=1)
    if not plan.fits:
        return None
    two = again(rows=2) if most > 1 else plan
    each = max(two.peak_bytes - plan.peak_bytes, 1)  # memory grows in a straight line with the rows
    room = 1 + max(0.0, (hardware.USABLE_SHARE * plan.memory_bytes - plan.peak_bytes) / each)
    rows = 2 ** int(math.log2(min(room, most)))
    while rows > 1:
        larger = again(rows=rows)
        if larger.fits:
            plan = larger
            break
        rows //= 2
    while plan.micro_batch == rows and 2 * rows <= most:  # the loss's chunks make the first rows dearer than others
        larger = again(rows=2 * rows)
        if not larger.fits:
            break
        plan, rows = larger, 2 * rows
    return plan


def _alone(asked: Asked) -> Iterator[tuple[int, float, WayOut]]:
    """The ways out on one device that change no result."""
    made = asked.made
    smaller = made.micro_batch // 2
    plan = most_rows(asked.again, most=smaller) if smaller else None
    if plan is not None:
        yield asked.way(" ".join(_batch(asked, plan)), plan, kind=SAME)
    for options in _savings(asked):
        plan = asked.again(**options)
        if not plan.fits:
            plan = most_rows(partial(asked.again, **options), most=smaller or 1)
        if plan is not None:
            yield asked.way(" ".join([*_named(options), *_batch(asked, plan)]), plan, kind=SAME, trainable=False)


def _savings(asked: Asked) -> list[dict[str, Any]]:
    """The settings that keep less on a device, the least first."""
    options: list[dict[str, Any]] = [{"checkpointing": "layers"}] if asked.made.checkpointing == "none" else []
    able = asked.device is not None and asked.device.device == "cuda" and isinstance(asked.optimizer, AdamW)
    if able and not asked.made.offload:
        options += [{"offload": True}, *({**option, "offload": True} for option in options)]
    return options


def _named(options: dict[str, Any]) -> list[str]:
    return [name if value is True else f"{name}={value}" for name, value in options.items()]


def _batch(asked: Asked, plan: Plan) -> list[str]:
    """How a step on one device is cut otherwise than it was."""
    if plan.layout is not None:
        return []
    was = asked.made
    sizes = {"rows": (was.micro_batch, plan.micro_batch), "accumulate": (was.accumulate, plan.accumulate)}
    return [f"{name}={now}" for name, (before, now) in sizes.items() if before != now]


def _longest(asked: Asked, options: dict[str, Any]) -> Plan | None:
    """The plan of the longest rows that fit, halves of what was asked; on one device, one row where more do not fit."""
    made = asked.made
    for rows in dict.fromkeys((made.micro_batch, 1)):
        again = partial(asked.again, rows=rows, **options)
        context = made.context // 2
        with suppress(ConfigError):
            if made.layout is None and not again(context=SHORTEST).fits:
                continue
            while context >= SHORTEST:
                plan = again(context=context)
                if plan.fits:
                    return plan
                context //= 2
    return None


def _shared(asked: Asked) -> Iterator[tuple[int, float, WayOut]]:
    """The ways out on as many devices: another layout."""
    for option in ({}, {"offload": True}):
        with suppress(ConfigError):
            plan = asked.again(layout="auto", rows=None, checkpointing=None, **option)
            if plan.fits and plan.layout is not None:
                layout = ",".join(f"{name}={size}" for name, size in plan.layout.items() if size != 1)
                yield asked.way(" ".join([f"layout={layout}", *option]), plan, kind=SAME, trainable=False)
                return


def _otherwise(asked: Asked) -> Iterator[tuple[int, float, WayOut]]:
    """The ways out that change what is computed."""
    made = asked.made
    for options in ({}, *(_savings(asked) if made.layout is None else [])):
        shorter = _longest(asked, options)
        if shorter is not None:
            change = " ".join([f"context={shorter.context}", *_batch(asked, shorter), *_named(options)])
            yield asked.way(change, shorter, kind=OTHER, trainable=made.layout is None and not options)
            break
    if made.layout is not None:
        return
    if not isinstance(asked.optimizer, Muon):
        plan = asked.again(optimizer=Muon())
        if plan.fits:
            yield asked.way("optimizer=muon", plan, kind=OTHER)
    if made.precision == "float32" and (asked.device is None or asked.device.best == "bfloat16"):
        plan = asked.again(precision="bf16")
        if plan.fits:
            yield asked.way("precision=bf16", plan, kind=OTHER)


def _elsewhere(asked: Asked) -> Iterator[tuple[int, float, WayOut]]:
    """The ways out on other devices, and on more of the same."""
    made = asked.made
    alone = made.layout is None
    need = made.peak_bytes
    if alone:
        need = (made.weights_bytes + made.gradients_bytes + made.optimizer_bytes) / hardware.USABLE_SHARE
    larger = [
        device
        for device in hardware.devices().values()
        if device.usd_per_hour is not None and device.memory_bytes >= need and device.device == "cuda"
    ]
    for device in sorted(larger, key=lambda one: one.usd_per_hour or math.inf)[:DEVICES_TRIED]:
        with suppress(ConfigError):
            on = f"{made.devices}x{device.name}" if made.devices > 1 else device.name
            again = partial(asked.again, on=on, watts=None, watts_cap=None, usd_per_hour=None)
            plan = most_rows(again, most=made.micro_batch) if alone else again()
            if plan is not None and plan.fits:
                change = " ".join([f"on={on} ({device.usd_per_hour:g} USD an hour)", *_batch(asked, plan)])
                yield asked.way(change, plan, kind=ELSEWHERE, trainable=alone)
    bill = {} if asked.device else {"watts": None, "watts_cap": None, "usd_per_hour": None}
    if asked.device is None and larger:
        return
    device = asked.device or hardware.devices()[USUAL]
    count = 2 ** math.ceil(math.log2(max(need / device.memory_bytes, 2))) if alone else 1
    count = max(count, 2 * made.devices)
    while count <= MOST_DEVICES * made.devices:
        with suppress(ConfigError):
            plan = asked.again(on=f"{count}x{device.name}", **bill, rows=None, checkpointing=None, layout="auto")
            if plan.fits:
                yield asked.way(f"on={count}x{device.name}", plan, kind=ELSEWHERE, trainable=False)
                return
        count *= 2
