"""What operations of our own do inside, for plans: PyTorch sees each of them as one, with its outputs alone.

An operation that loops over blocks, experts or tokens makes tensors for a moment and starts many kernels. `INSIDES` has
its body, to be run on tensors without values; where that goes over more blocks than one needs to see, `repeated` says
how many times a block stands for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

INSIDES: dict[Any, Callable[..., Any]] = {}  # by overload; NotImplemented where the operation is one kernel after all
_times: ContextVar[int] = ContextVar("times", default=1)


@contextmanager
def repeated(times: int) -> Iterator[None]:
    """Counts each operation within as so many."""
    token = _times.set(_times.get() * times)
    try:
        yield
    finally:
        _times.reset(token)


def times() -> int:
    """Returns how many operations one stands for."""
    return _times.get()
