"""What a plan was made from: it stays with the plan, to tell where its figures come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from groundup.mixers.base import MixerSpec
from groundup.model.model import Model
from groundup.model.stack import LayerKind
from groundup.objectives.objective import Objective, Shape
from groundup.planner.books import join
from groundup.planner.rates import Rates
from groundup.planner.rehearsal import Part
from groundup.planner.site import Site
from groundup.planner.step import Rehearsed, Step
from groundup.specs import walk

SHOWN = 3  # numbers of layers that are listed where they do not follow each other


@dataclass(frozen=True, kw_only=True)
class Study:
    """What a plan was made from.

    Attributes:
        rehearsed: the model, its rows and where it runs.
        step: as it is planned.
        rates: what an hour of a device comes to.
        context: tokens of a row, as it was asked for.
        text_tokens: to train on, before they are rounded up to whole steps.
        asked: the arguments of the plan, by name; None is what was left open.
        again: makes the plan anew, with other arguments where they are given.
    """

    rehearsed: Rehearsed
    step: Step
    rates: Rates
    context: int
    text_tokens: float
    asked: Mapping[str, Any]
    again: Callable[..., Any]

    @property
    def spec(self) -> Model:
        """The model."""
        return self.rehearsed.spec

    @property
    def shape(self) -> Shape:
        """Of a row."""
        return self.rehearsed.shape

    @property
    def site(self) -> Site:
        """Where it runs."""
        return self.rehearsed.site

    @property
    def precision(self) -> str:
        """The type of the products."""
        return self.site.low or str(self.rehearsed.dtype).removeprefix("torch.")

    @property
    def matrix_rate(self) -> float:
        """What utilisation is a share of, operations per second."""
        return self.site.rate(self.precision)

    def parts(self, *, rows: int, context: int | None = None) -> tuple[Part, ...]:
        """Returns the rehearsed parts of a micro-batch, with rows of another context where one is given."""
        if context is None:
            return self.rehearsed.parts(rows=rows)
        objective: Objective | None = self.asked["objective"]
        shape = Shape.even(context) if objective is None else objective.shape(self.spec, context)
        return replace(self.rehearsed, shape=shape).parts(rows=rows)


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
