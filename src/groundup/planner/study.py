"""What a plan was made from: it stays with the plan, to tell where its figures come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from groundup.mixers.base import MixerSpec
from groundup.model.model import Model
from groundup.model.stack import LayerKind
from groundup.objectives.objective import Objective, Shape
from groundup.optim.optimizers import Optimizer
from groundup.planner.books import join
from groundup.planner.grids import Grid
from groundup.planner.hardware import Device
from groundup.planner.layout import Job, Laid
from groundup.planner.machine import Machine
from groundup.planner.memory import Memory
from groundup.planner.rehearsal import Part, rehearse
from groundup.specs import walk

SHOWN = 3  # numbers of layers that are listed where they do not follow each other


@dataclass(frozen=True, kw_only=True)
class Study:
    """What a plan was made from.

    Attributes:
        spec: the model.
        shape: of a row.
        dtype: of the matrix products.
        asked: the arguments of the plan, by name; None is what was left open.
        again: makes the plan anew, with other arguments where they are given.
        machine: the rates of a device.
        device: as published; None for this machine.
        grid: whose electricity it is; None where nobody says.
        watts: of each device under load; None where nobody knows them.
        usd_per_hour: of each device; None where nobody says.
        matrix_rate: what utilisation is a share of, operations per second.
        usable_share: of the memory, below which a step of one device fits.
        text_tokens: to train on, before they are rounded up to whole steps.
        wanted_tokens: of a step, before they are rounded to whole micro-batches.
        most_tokens: of a micro-batch whose rows nobody gave, on one device.
        slower: by how much operations take longer in a step than at the machine's rates.
        memory: of a step.
        job: the step that several devices share; None for one device.
    """

    spec: Model
    shape: Shape
    dtype: torch.dtype
    asked: Mapping[str, Any]
    again: Callable[..., Any]
    machine: Machine
    device: Device | None
    grid: Grid | None
    watts: float | None
    usd_per_hour: float | None
    matrix_rate: float
    usable_share: float
    text_tokens: float
    wanted_tokens: float
    most_tokens: int
    slower: float
    memory: Memory | Laid
    job: Job | None

    def parts(self, *, rows: int, context: int | None = None) -> tuple[Part, ...]:
        """Returns the rehearsed parts of a micro-batch, with rows of another context where one is given."""
        objective: Objective | None = self.asked["objective"]
        optimizer: Optimizer = self.asked["optimizer"]
        shape = self.shape
        if context is not None:
            shape = Shape.even(context) if objective is None else objective.shape(self.spec, context)
        return rehearse(
            self.spec, rows=rows, shape=shape, dtype=self.dtype, optimizer=optimizer, device=self.machine.device
        )


def part_names(spec: Model) -> list[str]:
    """Returns what to call each rehearsed part of a model, in their order: ``layers 0-11 (Attention, MLP)``."""
    layers, names = layer_names(spec), []
    for stack in spec.stacks:
        inside = [name for path, name in layers.items() if path.rpartition("layers.")[0].rstrip(".") == stack]
        names += [*(join(stack, part) for part in ("shared", "embed")), *inside, join(stack, "norm")]
    return [*names, "loss"]


def layer_names(spec: Model) -> dict[str, str]:
    """Returns what to call each distinct layer and its copies, by its path as `groundup.planner.books` has it."""
    names = {}
    for path, stack in spec.stacks.items():
        places: dict[LayerKind, list[int]] = {}
        for number, kind in enumerate(stack.layer_kinds):
            places.setdefault(kind, []).append(number)
        for index, ((layer, _), numbers) in enumerate(places.items()):
            mixers = dict.fromkeys(type(node).__name__ for _, node in walk(layer) if isinstance(node, MixerSpec))
            names[join(path, f"layers.{index}")] = join(path, f"{_span(numbers)} ({', '.join(mixers)})")
    return names


def _span(numbers: list[int]) -> str:
    first, last = numbers[0], numbers[-1]
    if first == last:
        return f"layer {first}"
    if last - first + 1 == len(numbers):
        return f"layers {first}-{last}"
    some = ", ".join(map(str, numbers[:SHOWN]))
    return f"layers {some}" if len(numbers) <= SHOWN else f"layers {some}, … {last}"
