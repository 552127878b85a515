"""The operations of a step by kind: how often each is done, what it takes, and what holds it up.

An operation is held up by its launch, by the memory that it moves, or by what it computes, see time.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from groundup.planner.machine import Machine
from groundup.planner.phantom import VIEW, Work
from groundup.planner.rehearsal import Part
from groundup.planner.time import seconds

Bound = Literal["compute", "memory", "launch"]
Kind = tuple[str, str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """All operations of a step of one name, type and, where they are products or attention, size.

    Attributes:
        name: in ATen.
        dtype: of the first input; empty for views.
        size: (m, k, n) of a product of matrices, (T, S) of attention, else empty.
        times: how often it is done.
        flops: of products and attention, 0 for all else.
        elements: numbers that it makes.
        moved_bytes: what it reads and writes.
        seconds: what it takes.
        bound: what most of its time is held up by.
    """

    name: str
    dtype: str
    size: tuple[int, ...]
    times: float
    flops: float
    elements: float
    moved_bytes: float
    seconds: float
    bound: Bound

    @property
    def label(self) -> str:
        """What it is called where people read it: ``mm 4096x768x3072 bfloat16``."""
        return " ".join(filter(None, (called(self.name), "x".join(map(str, self.size)), self.dtype)))


def operations(parts: Iterable[Part], machine: Machine, *, accumulate: int = 1, slower: float = 1.0) -> list[Operation]:
    """Returns the operations of a step by kind, those that take longest first; their seconds add up to the step's.

    Args:
        parts: the rehearsed micro-step.
        machine: where it runs.
        accumulate: micro-batches in a step.
        slower: by how much operations take longer in a step than at the machine's rates.
    """
    groups: dict[Kind, list[tuple[Work, float]]] = {}
    for work, times in _works(parts, accumulate):
        groups.setdefault((work.name, work.dtype, work.size), []).append((work, times))
    found = (_operation(kind, works, machine, slower) for kind, works in groups.items())
    return sorted(found, key=lambda operation: -operation.seconds)


def without_sizes(every: Iterable[Operation]) -> list[Operation]:
    """Returns operations with those of one name and type together, those that take longest first."""
    groups: dict[tuple[str, str], list[Operation]] = {}
    for one in every:
        groups.setdefault((called(one.name), one.dtype), []).append(one)
    merged = []
    for (name, dtype), alike in groups.items():
        took: dict[Bound, float] = {}
        for one in alike:
            took[one.bound] = took.get(one.bound, 0.0) + one.seconds
        merged.append(
            Operation(
                name=name,
                dtype=dtype,
                size=(),
                times=sum(one.times for one in alike),
                flops=sum(one.flops for one in alike),
                elements=sum(one.elements for one in alike),
                moved_bytes=sum(one.moved_bytes for one in alike),
                seconds=sum(one.seconds for one in alike),
                bound=max(took, key=lambda holding: took[holding]),
            )
        )
    return sorted(merged, key=lambda one: -one.seconds)


def bound(work: Work, machine: Machine) -> Bound:
    """Returns what holds an operation up: the largest of its launch, its moving of memory, its computing."""
    launch = seconds(VIEW, machine)
    if work == VIEW:
        return "launch"
    moving = seconds(Work(name="copy", moved_bytes=work.moved_bytes), machine) - launch
    computing = seconds(replace(work, moved_bytes=0), machine) - launch
    if launch > max(moving, computing):
        return "launch"
    return "compute" if computing > moving else "memory"


def called(name: str) -> str:
    """Returns ATen's name of an operation without what no reader asks for."""
    for long, short in (
        ("_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("_scaled_dot_product_efficient_attention", "attention"),
        ("_scaled_dot_product_flash_attention", "attention"),
        ("_to_copy", "copy to a type"),
    ):
        name = name.replace(long, short)
    return name.strip("_")


def _works(parts: Iterable[Part], accumulate: int) -> Iterator[tuple[Work, float]]:
    for part in parts:
        for works, passes in ((part.forward, accumulate), (part.backward, accumulate), (part.update, 1)):
            yield from ((work, part.count * passes * times) for work, times in works)


def _operation(kind: Kind, works: list[tuple[Work, float]], machine: Machine, slower: float) -> Operation:
    name, dtype, size = kind
    took: dict[Bound, float] = {}
    for work, times in works:
        holding = bound(work, machine)
        took[holding] = took.get(holding, 0.0) + slower * times * seconds(work, machine)
    return Operation(
        name=name,
        dtype=dtype,
        size=size,
        times=sum(times for _, times in works),
        flops=sum(times * work.flops for work, times in works),
        elements=sum(times * work.elements for work, times in works),
        moved_bytes=sum(times * work.moved_bytes for work, times in works),
        seconds=sum(took.values()),
        bound=max(took, key=lambda holding: took[holding]),
    )
