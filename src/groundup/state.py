"""What a model remembers of the tokens it has read, with every operation on it written once.

A state is a dataclass whose fields are tensors with the rows first, other states, tuples or dicts of them, or plain
numbers that hold for all rows. Mixers own their state's meaning; moving rows about needs only this shape.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from groundup.errors import GenerationError, writing


@dataclass
class State:
    """The memory of rows of tokens; this base class is the state of parts that remember nothing."""

    @property
    def rewinds(self) -> bool:
        """Whether the last tokens of a row can be forgotten again, by every part; where not, keep a `fork`."""
        return all(value.rewinds for value in self._values() if isinstance(value, State))

    def select(self, rows: Tensor) -> Self:
        """Returns the given rows, in the given order; ``rows`` holds indices (any may come twice) or booleans."""
        return _map(self, lambda t: t[rows])

    def repeat(self, times: int) -> Self:
        """Returns every row ``times`` times, copies beside each other."""
        return _map(self, lambda t: t.repeat_interleave(times, 0))

    def fork(self) -> Self:
        """Returns a copy that shares no memory with this state."""
        return _map(self, torch.clone)

    @classmethod
    def join(cls, states: Sequence[Self]) -> Self:
        """Returns the rows of all states, in order; numbers that hold for all rows become the largest.

        Raises:
            GenerationError: the states were made for different lengths.
        """
        sizes = [[t.shape[1:] for t in state.tensors().values()] for state in states]
        if any(size != sizes[0] for size in sizes):
            raise GenerationError("states of different sizes cannot be joined; make them with the same max_len")
        return _join(list(states))

    def rewind(self, length: Tensor) -> None:
        """Forgets, in place, all but the first ``length`` (B,) tokens of each row.

        Raises:
            GenerationError: the state holds a part that cannot forget, and is as it was; keep a `fork` instead.
        """
        if not self.rewinds:
            raise GenerationError(f"{type(self).__name__} cannot rewind; fork the state before the tokens to forget")
        for value in self._values():
            if isinstance(value, State):
                value.rewind(length)

    def tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """Returns every tensor of the state and of the states inside it, by dotted name."""
        return {prefix + name: leaf for name, leaf in _leaves(self) if isinstance(leaf, Tensor)}

    @property
    def nbytes(self) -> int:
        """Bytes that the state occupies, at its full length."""
        return sum(t.nbytes for t in self.tensors().values())

    def save(self, path: Path | str) -> None:
        """Writes the state to a safetensors file.

        Raises:
            StorageError: the disk is full or the place cannot be written.
        """
        numbers = {name: leaf for name, leaf in _leaves(self) if not isinstance(leaf, Tensor)}
        tensors = {name: t.contiguous() for name, t in self.tensors().items()}
        with writing(Path(path)):
            Path(path).write_bytes(to_bytes(tensors, metadata={"state": json.dumps(numbers)}))

    def load(self, path: Path | str) -> Self:
        """Returns a state shaped as this one with the content that `save` wrote.

        Raises:
            GenerationError: the file is not a state, or belongs to another model, rows or length.
        """
        try:
            with safe_open(path, framework="pt") as file:
                numbers = json.loads((file.metadata() or {}).get("state", "{}"))
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as fault:
            raise GenerationError(f"{path} is not a saved state: {fault}") from fault
        mine, leaves = self.tensors(), _leaves(self)
        same_shapes = {n: t.shape for n, t in mine.items()} == {n: t.shape for n, t in found.items()}
        if not same_shapes or numbers.keys() != {name for name, leaf in leaves if not isinstance(leaf, Tensor)}:
            raise GenerationError(f"{path} holds the state of another model, row count or max_len, or none")
        named = iter(leaves)

        def restore(leaf: Any) -> Any:
            name, _ = next(named)
            return found[name].to(mine[name], copy=True) if isinstance(leaf, Tensor) else numbers[name]

        return _map_leaves(self, restore)

    def _values(self) -> list[Any]:
        """The fields, with tuples and dicts opened."""
        opened: list[Any] = []
        for field in dataclasses.fields(self):
            opened += _open(getattr(self, field.name))
        return opened


def _open(value: Any) -> list[Any]:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else None
    return [value] if items is None else [leaf for item in items for leaf in _open(item)]


def _leaves(value: Any, name: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, State):
        inside = [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    elif isinstance(value, dict):
        inside = list(value.items())
    elif isinstance(value, tuple):
        inside = list(enumerate(value))
    else:
        return [(name, value)]
    return [leaf for key, item in inside for leaf in _leaves(item, f"{name}.{key}" if name else str(key))]


def _map_leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, State):
        changes = {f.name: _map_leaves(getattr(value, f.name), change) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **changes)
    if isinstance(value, dict):
        return {key: _map_leaves(item, change) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_map_leaves(item, change) for item in value)
    return change(value)


def _map(state: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return _map_leaves(state, lambda leaf: change(leaf) if isinstance(leaf, Tensor) else leaf)


def _join(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, State):
        names = [f.name for f in dataclasses.fields(first)]
        return dataclasses.replace(first, **{n: _join([getattr(v, n) for v in values]) for n in names})
    if isinstance(first, dict):
        return {key: _join([v[key] for v in values]) for key in first}
    if isinstance(first, tuple):
        return tuple(_join(list(items)) for items in zip(*values, strict=True))
    return torch.cat(values) if isinstance(first, Tensor) else max(values)
