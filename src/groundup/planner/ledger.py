"""A meter of what generating reads: which operations, and how much of weights and of states each of them moves.

Where few tokens are read, what an operation moves is told more closely than a `Meter` does for training: rows of
tables and slots of states count as themselves, not as the whole that they lie in, and of a mixture's experts those
that so many tokens are expected to choose. With E experts, of which each of N tokens takes A:

    experts read = E (1 - (1 - A / E)^N)        where all are as likely as each other
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from groundup import devices
from groundup.parts.linear import ExpertLinear
from groundup.planner.phantom import VIEW, Meter, Phantom, Work

# Operations that read some of their first argument, by ATen's names, and those that write some of it.
PICKING = {"embedding", "gather", "index", "index_select"}
PLACING = {"index_put_": 2, "scatter_": 2}  # with the argument that is as large as what they write


@dataclass(frozen=True)
class Operation:
    """An operation with where it reads.

    Attributes:
        work: the operation.
        weights_bytes: of what it moves, the weights.
        state_bytes: of what it moves, what the rows' state holds.
        inside: whether it is a layer's: the embedding, the last norm, the head and the choice are not.
    """

    work: Work
    weights_bytes: float = 0.0
    state_bytes: float = 0.0
    inside: bool = False


class Ledger(Meter):
    """A meter that tells apart what is read of weights and of states, and how often each operation stands for itself.

    Attributes:
        operations: what was done since `mark`, and how many times.
        weights: the storages of weights.
        state: those of the rows' state.
    """

    looking_inside = False  # products of experts are told from how many of them are expected to be chosen

    def __init__(self) -> None:
        super().__init__("cpu")  # PyTorch makes no phantoms on a device that it was not built for
        self.operations: dict[Operation, float] = defaultdict(float)
        self.weights: set[int] = set()
        self.state: set[int] = set()
        self._times: list[float] = [1.0]
        self._inside = False
        self._active = 1

    def mark(self) -> int:
        """Forgets the operations and the peak so far; returns the bytes alive now."""
        self.operations.clear()
        return super().mark()

    @contextmanager
    def times(self, times: float, *, inside: bool = False) -> Iterator[None]:
        """Counts what is done here so many times."""
        before, self._inside = self._inside, inside
        self._times.append(self._times[-1] * times)
        yield
        self._times.pop()
        self._inside = before

    def follow(self, layer: nn.Module, times: float) -> None:
        """Counts a layer's operations so many times from now on."""

        def enter(*_: Any) -> None:
            self._times.append(self._times[-1] * times)
            self._inside = True

        def leave(*_: Any) -> None:
            self._times.pop()
            self._inside = False

        layer.register_forward_pre_hook(enter)
        layer.register_forward_hook(leave)
        for part in layer.modules():
            if isinstance(part, ExpertLinear):
                part.register_forward_pre_hook(self._choose)

    def _choose(self, part: nn.Module, _: Any) -> None:
        assert isinstance(part, ExpertLinear)
        self._active = part.active

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation on shapes alone and writes it into the books."""
        self.works.clear()
        out = super().__torch_dispatch__(func, types, args, kwargs)
        given = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Phantom)]
        for work in list(self.works):
            self._note(work, args, given, out)
        return out

    def _note(self, work: Work, args: Any, given: list[Phantom], out: Any) -> None:
        """Writes down an operation with what it really moves."""
        read = {id(t): float(t.nbytes) for t in given}
        moved = float(work.moved_bytes)
        if work != VIEW and work.name in PICKING:
            read[id(args[0])] = min(args[0].nbytes, out.nbytes)
            moved -= args[0].nbytes - read[id(args[0])]
        elif work.name in PLACING:
            placed = args[PLACING[work.name]].numel()
            read[id(args[0])] = placed * args[0].element_size()
            moved -= 2 * (args[0].nbytes - read[id(args[0])])
            work = replace(work, elements=placed)
        elif work.name == "copy_":
            moved -= args[0].nbytes  # it is written and not read
        elif work.name == "expert_products":
            work, moved = self._of_experts(work, args, read)
        of_weights = sum(read[id(t)] for t in given if storage(t) in self.weights and work != VIEW)
        of_state = sum(read[id(t)] for t in given if storage(t) in self.state and work != VIEW)
        operation = Operation(replace(work, moved_bytes=round(moved)), of_weights, of_state, self._inside)
        self.operations[operation] += self._times[-1]

    def _of_experts(self, work: Work, args: Any, read: dict[int, float]) -> tuple[Work, float]:
        """The products of those experts that are expected to be chosen; all of them are one operation, or one each."""
        rows, weight, _ = args
        among = len(weight)
        chosen = expected_experts(among, active=self._active, tokens=len(rows) / self._active)
        idle = weight.nbytes * (1 - chosen / among)
        read[id(weight)] -= idle
        if devices.kind_of(rows) != "cuda" or rows.dtype != torch.bfloat16:
            self.operations[Operation(Work(name="mm", dtype=work.dtype))] += self._times[-1] * (chosen - 1)
            self.operations[Operation(VIEW)] += self._times[-1] * 3 * chosen  # of its rows, its matrix, its results
        size = (max(1, round(len(rows) / chosen)), *work.size[1:])
        return replace(work, size=size), work.moved_bytes - idle


def expected_experts(experts: int, *, active: int, tokens: float) -> float:
    """Returns how many different experts so many tokens choose, where all are as likely as each other."""
    return experts * (1 - (1 - active / experts) ** tokens)


def storage(t: Tensor) -> int:
    """Returns what tells a phantom's storage from others; 0 for other tensors."""
    return t.bare.untyped_storage()._cdata if isinstance(t, Phantom) else 0
