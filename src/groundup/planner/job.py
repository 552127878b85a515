"""A step that is to be laid out over devices: what a layer of it takes, and what is no layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

from groundup.mixers.moe import MoE
from groundup.model.model import Model
from groundup.objectives.objective import Shape
from groundup.planner import books
from groundup.planner.hardware import Device
from groundup.planner.machine import Machine
from groundup.planner.recompute import light, made_bytes
from groundup.planner.rehearsal import Part
from groundup.planner.time import works_seconds
from groundup.specs import Spec, walk

MANY = 4  # rows of the micro-batch that is rehearsed beside that of one
OF_WEIGHTS = ("params", "update_seconds")  # figures that do not depend on the rows


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one layer, or all that is no layer, takes on one device for a row.

    Attributes:
        params: its weights.
        kept_bytes: for the backward, without copies of weights.
        made_bytes: what its products make, in 16 bits.
        forward_seconds: of its forward.
        light_seconds: of what in it is no product.
        backward_seconds: of its backward.
        update_seconds: of its weights' update.
    """

    params: float
    kept_bytes: float
    made_bytes: float
    forward_seconds: float
    light_seconds: float
    backward_seconds: float
    update_seconds: float

    @classmethod
    def of(cls, parts: Sequence[Part], machine: Machine, *, share: float = 1.0) -> Figures:
        """Returns the figures of parts together, times a share."""

        def all_of(figure: Callable[[Part], float]) -> float:
            return share * sum(part.count * figure(part) for part in parts)

        return cls(
            params=all_of(lambda part: part.gradient_bytes / 4),
            kept_bytes=all_of(lambda part: part.kept_bytes - part.cast_bytes),
            made_bytes=all_of(made_bytes),
            forward_seconds=all_of(lambda part: works_seconds(part.forward, machine)),
            light_seconds=all_of(lambda part: works_seconds(light(part.forward), machine)),
            backward_seconds=all_of(lambda part: works_seconds(part.backward, machine)),
            update_seconds=all_of(lambda part: works_seconds(part.update, machine)),
        )

    def among(self, many: Figures, *, rows: int) -> Figures:
        """Returns what a row takes in a micro-batch of so many.

        What a micro-batch takes grows in a straight line with its rows: the weights are read once for all of them.

        Args:
            many: what the same takes for `MANY` rows together.
            rows: of the micro-batch.
        """

        def each(name: str) -> float:
            one, most = getattr(self, name), getattr(many, name)
            return one if name in OF_WEIGHTS else (one + (most - one) * (rows - 1) / (MANY - 1)) / rows

        return Figures(**{field.name: each(field.name) for field in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Experts:
    """The experts of a mixture.

    Attributes:
        count: how many a layer has.
        active: through how many of them a token goes.
        params: of all of them, in the mean of all layers.
        share: of the layers that have them.
    """

    count: int
    active: int
    params: float
    share: float

    @classmethod
    def of(cls, spec: Model) -> Experts | None:
        """Returns the experts of a model; None where it has none."""
        found = [part for _, part in walk(spec) if isinstance(part, MoE)]
        if not found:
            return None
        layers = sum(len(stack.layers) for stack in spec.stacks.values())
        idle = books.params(spec) - books.active_params(spec)
        count = math.gcd(*(part.experts for part in found))
        active = sum(part.active for part in found) / len(found)
        every = (
            idle * found[0].experts / max(found[0].experts - found[0].active, 1)
        )  # those that wait and those at work
        mixed = sum(_mixes(layer) for stack in spec.stacks.values() for layer in stack.layers)
        return cls(count=count, active=round(active), params=every / layers, share=mixed / layers)


def _mixes(layer: Spec) -> bool:
    return any(isinstance(part, MoE) for _, part in walk(layer))


@dataclass(frozen=True, kw_only=True)
class Job:
    """The step that is laid out.

    Attributes:
        parts: of a micro-batch of one row, on one device.
        layers: how many there are.
        width: of the stream.
        heads: the most devices that can share a layer's matrices.
        context: tokens of a row.
        rows: of a step.
        machine: the rates of a device.
        device: its memory and links.
        many: the parts of a micro-batch of `MANY` rows; without them, rows together take what each takes alone.
        experts: of a mixture; None where it is none.
    """

    parts: Sequence[Part]
    layers: int
    width: int
    heads: int
    context: int
    rows: int
    machine: Machine
    device: Device
    many: Sequence[Part] = ()
    experts: Experts | None = None

    @cached_property
    def each(self) -> Figures:
        """What a layer takes for a row alone, where they differ the mean."""
        return self._of("layer")[0]

    @cached_property
    def ends(self) -> Figures:
        """What the embedding, the last norm and the loss take for a row alone."""
        return self._of("ends")[0]

    def among(self, rows: int) -> tuple[Figures, Figures]:
        """Returns what a layer, and what is none, take for a row in a micro-batch of so many."""
        if not self.many:
            return self.each, self.ends
        if rows not in self._among:
            layer, ends = (one.among(many, rows=rows) for one, many in map(self._of, ("layer", "ends")))
            self._among[rows] = layer, ends
        return self._among[rows]

    @cached_property
    def _among(self) -> dict[int, tuple[Figures, Figures]]:
        return {1: (self.each, self.ends)}

    def _of(self, what: str) -> tuple[Figures, Figures]:
        """The figures of a row alone and of `MANY`."""
        share = 1 / self.layers if what == "layer" else 1.0
        alone, together = (
            Figures.of(
                [part for part in parts if (part.name == "layer") == (what == "layer")], self.machine, share=share
            )
            for parts in (self.parts, self.many)
        )
        return alone, together

    @property
    def logits_bytes(self) -> int:
        """What the loss of a row needs."""
        return next(part.forward_peak_bytes for part in self.parts if part.name == "loss")

    @property
    def row_bytes(self) -> int:
        """The stream of a row, in 16 bits."""
        return 2 * self.context * self.width


def job_of(
    spec: Model,
    rehearsed: Callable[..., tuple[Part, ...]],
    device: Device,
    *,
    machine: Machine,
    shape: Shape,
    wanted: float,
) -> Job:
    """Returns the step of a model on devices.

    Args:
        spec: the model.
        rehearsed: gives the parts of a micro-batch of ``rows``.
        device: which they are.
        machine: their rates.
        shape: of a row.
        wanted: tokens of a step.
    """
    stacks = spec.stacks.values()
    layers = sum(len(stack.layers) for stack in stacks)
    read = sum(len(stack.layers) * (shape.ids if stack is spec.predictor else shape.source) for stack in stacks)
    return Job(
        parts=rehearsed(rows=1),
        many=rehearsed(rows=MANY),
        layers=layers,
        width=spec.predictor.width,
        heads=books.shared_heads(spec.predictor) if len(stacks) == 1 else math.gcd(*map(books.shared_heads, stacks)),
        context=round(read / layers),
        rows=max(1, round(wanted / shape.text)),
        machine=machine,
        device=device,
        experts=Experts.of(spec),
    )
