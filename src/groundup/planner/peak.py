"""What is held at the worst moment of a training step, by component and by node.

The walk is that of memory.py, on which its peak is; here it is kept who holds what.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from groundup.planner.derivation import Term
from groundup.planner.rehearsal import Part


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The worst moment of a step.

    Attributes:
        moment: ``forward``, ``loss``, ``backward`` or ``update``.
        node: of which part.
        gradients: those that are there, by node.
        activations: what forwards keep for their backwards, by node.
        copies: autocast's copies of weights, by node.
        passing: what that part needs for the moment alone.
    """

    moment: str
    node: str
    gradients: Term
    activations: Term
    copies: Term
    passing: Term

    @property
    def where(self) -> str:
        """The moment in words: ``the backward of layers 0-11 (Attention, MLP)``."""
        return "the loss" if self.moment == "loss" else f"the {self.moment} of {self.node}"

    @property
    def terms(self) -> tuple[Term, ...]:
        """What is held, by component; without those that hold nothing."""
        return tuple(term for term in (self.gradients, self.activations, self.copies, self.passing) if term.value)


@dataclass(frozen=True)
class _Held:
    """How many copies of a part have kept their activations, and of how many the gradients are there."""

    kept: int = 0
    graded: int = 0


def peak_of(parts: Sequence[Part], names: Sequence[str], *, accumulate: int) -> Peak:
    """Returns what is held at the peak of a step.

    Args:
        parts: the rehearsed micro-step.
        names: of the parts.
        accumulate: micro-batches in a step; from the second on, the gradients of the first are there all along.
    """
    earlier = accumulate > 1
    _, moment, place, passing, held = max(_walk(parts, earlier=earlier), key=lambda found: found[:2])

    def by_node(name: str, sizes: Iterable[tuple[int, int]], source: str) -> Term:
        nodes = tuple(
            Term(name=node, value=size, unit="bytes", count=count)
            for node, (count, size) in zip(names, sizes, strict=True)
            if size
        )
        return Term(name=name, value=sum(node.value or 0 for node in nodes), unit="bytes", source=source, parts=nodes)

    both = list(zip(parts, held, strict=True))
    return Peak(
        moment=moment,
        node=names[place],
        gradients=by_node(
            "gradients",
            [(part.count if earlier else h.graded, _gradients(part, h, earlier=earlier)) for part, h in both],
            "of all micro-batches" if earlier else "of the parts whose backward is through",
        ),
        activations=by_node(
            "activations",
            [(h.kept, h.kept * (part.kept_bytes - part.cast_bytes)) for part, h in both],
            "what forwards keep for their backwards",
        ),
        copies=by_node(
            "copies of weights",
            [(h.kept, h.kept * part.cast_bytes) for part, h in both],
            "in the type of the products, by autocast",
        ),
        passing=Term(
            name="passing",
            value=passing,
            unit="bytes",
            source=f"what the {moment} of {names[place]} needs for the moment"
            if moment != "loss"
            else "what the loss needs for the moment",
        ),
    )


def _walk(parts: Sequence[Part], *, earlier: bool) -> Iterator[tuple[int, str, int, int, tuple[_Held, ...]]]:
    """Yields the moments: what is held in all, the kind of moment, the part's place, what it needs, who holds what."""
    held = [_Held() for _ in parts]

    def now(kind: str, place: int, passing: int) -> tuple[int, str, int, int, tuple[_Held, ...]]:
        there = sum(
            h.kept * part.kept_bytes + _gradients(part, h, earlier=earlier) for part, h in zip(parts, held, strict=True)
        )
        return there + passing, kind, place, passing, tuple(held)

    every = [place for place, part in enumerate(parts) for _ in range(part.count)]
    for place in every:
        yield now("loss" if parts[place].name == "loss" else "forward", place, parts[place].forward_peak_bytes)
        held[place] = replace(held[place], kept=held[place].kept + 1)
    for place in reversed(every):
        yield now("backward", place, parts[place].backward_peak_bytes)
        held[place] = _Held(held[place].kept - 1, held[place].graded + 1)
    for place in every:
        yield now("update", place, parts[place].update_peak_bytes)


def _gradients(part: Part, held: _Held, *, earlier: bool) -> int:
    """What the backwards of a part's copies left, and what is there from earlier micro-batches, to which it is added.

    Tied weights make the gradient of one part in the backward of another.
    """
    left = part.kept_bytes + part.backward_net_bytes
    if not earlier:
        return held.graded * left
    return part.count * part.gradient_bytes + held.graded * (left - part.gradient_bytes)
