"""The first steps of a training, replayed on a heap: what the allocator holds beyond what is alive.

Each rehearsed part says what it makes and frees, in order. Here the copies of all parts do it as a real step would,
over the first `STEPS` steps, on the heap of heap.py. Beside each tensor lie the small objects that PyTorch keeps of it,
and beside each operation the node that autograd keeps until the backward is over. They are a thousandth of the bytes
and most of the gaps: what is freed is not joined across them. Their sizes were read off a trace of a real run's
malloc (GPT-2, torch 2.13). Where gaps arise is a matter of chance, so the worst of several `GUESSES` is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from groundup.planner.heap import Heap
from groundup.planner.phantom import FREED, RECORDED, Event
from groundup.planner.rehearsal import Comings, Part

STEPS = 3  # of which the heap grows in the second, as the optimizer's state comes between, and little in later ones
FEW_EVENTS = 10_000  # of a micro-step: half a second of replay; of more, one guess has to do
MOST_EVENTS = 150_000  # three seconds; of more, the gaps are not told


@dataclass(frozen=True)
class Small:
    """The bytes of the small objects beside a tensor, made before it and after it, and of a node of autograd."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    node: tuple[int, ...]


# A storage is 96 bytes, a tensor 176, what autograd keeps of it 312, of a saved one 184, a node 464 to 736, and each of
# the node's lists 16 to 32.
GUESSES = (
    Small(before=(96,), after=(176, 24), node=(488, 16, 16, 24, 32)),
    Small(before=(96,), after=(176, 24, 184, 312), node=(488, 16, 16, 24, 32, 176, 312)),
    Small(before=(96,), after=(176, 24, 184), node=(488, 16, 24, 736, 32, 16, 16, 16, 16, 176, 312)),
)


def grown_bytes(parts: Sequence[Part], *, accumulate: int = 1) -> int | None:
    """Returns by how much the heap grows, weights and optimizer included; None where that would take too long.

    Args:
        parts: the rehearsed micro-step.
        accumulate: micro-batches in a step; two stand for more.
    """
    every = [(part, part.comings) for part in parts]
    if any(comings is None for _, comings in every):
        return None
    events = sum(part.count * (len(comings.forward) + len(comings.backward)) for part, comings in every if comings)
    if events > MOST_EVENTS:
        return None
    copies = [comings for part, comings in every if comings for _ in range(part.count)]
    guesses = GUESSES if events <= FEW_EVENTS else GUESSES[-1:]
    return max(_Run(copies, small).grown_bytes(min(accumulate, 2)) for small in guesses)


Key = tuple[int, int, int]  # of a block: the micro-batch, the copy that made it and the number in its events


class _Run:
    """A run whose blocks lie on a heap."""

    def __init__(self, copies: Sequence[Comings], small: Small) -> None:
        self.copies = copies
        self.small = small
        self.heap = Heap()
        self.micro = 0
        self.blocks: dict[Key, list[int]] = {}
        self.holders: dict[Key, int] = {}  # how many parts need a block, where it is not one
        self.names: dict[Key, Key] = {}  # what a block is called by the copy that made it, where another uses it
        self.nodes: list[int] = []

    def grown_bytes(self, accumulate: int) -> int:
        for copy in self.copies:
            for size in copy.weights:
                self.heap.allocate_aligned(size)
        for step in range(STEPS):
            for self.micro in range(accumulate):
                self._micro_step()
            for place, copy in enumerate(self.copies):
                self._play(place, copy.update)
            for size in [] if step else [size for copy in self.copies for size in copy.states]:
                self.heap.allocate_aligned(size)
            self._clear()
        return self.heap.grown_bytes

    def _micro_step(self) -> None:
        last = len(self.copies) - 1
        for place, copy in enumerate(self.copies):
            if copy.reads and place:
                self.names[self.micro, place, copy.reads] = self._key(place - 1, self.copies[place - 1].makes)
            self._play(place, copy.forward)
            if place < last and self.copies[place + 1].reads:
                self.holders[self._key(place, copy.makes)] = 2 if copy.keeps else 1
        for place in range(last, -1, -1):
            copy = self.copies[place]
            if place < last and self.copies[place + 1].grades:
                self.names[self.micro, place, copy.graded] = self._key(place + 1, self.copies[place + 1].grades)
            before = set(self.blocks) if self.micro else set()
            self._play(place, copy.backward, handed_on=copy.grades)
            if self.micro:  # gradients are added to those of the first micro-batch
                for key in set(self.blocks) - before - {self._key(place, copy.grades)}:
                    self._drop(key)
        for node in reversed(self.nodes):
            self.heap.free(node)
        self.nodes.clear()

    def _play(self, place: int, events: Sequence[Event], *, handed_on: int = 0) -> None:
        """Plays what a copy makes and frees; a gradient that it hands on is freed by the copy that takes it."""
        for event in events:
            number, size = event
            if event == RECORDED:
                self.nodes += [self.heap.allocate(one) for one in self.small.node]
            elif size == FREED:
                if number != handed_on:
                    self._drop(self._key(place, number))
            elif (self.micro, place, number) not in self.names:
                self._make((self.micro, place, number), size)

    def _make(self, key: Key, size: int) -> None:
        blocks = [self.heap.allocate(one) for one in self.small.before]
        blocks.append(self.heap.allocate_aligned(size))
        self.blocks[key] = blocks + [self.heap.allocate(one) for one in self.small.after]

    def _drop(self, key: Key) -> None:
        """Frees a block, unless another part needs it."""
        holders = self.holders.pop(key, 1)
        if holders > 1:
            self.holders[key] = holders - 1
            return
        for block in self.blocks.pop(key, ()):
            self.heap.free(block)

    def _key(self, place: int, number: int) -> Key:
        key = (self.micro, place, number)
        return self.names.get(key, key)

    def _clear(self) -> None:
        """Frees what is left after a step: gradients, and what nobody took."""
        self.holders.clear()
        self.names.clear()
        for key in list(self.blocks):
            self._drop(key)
