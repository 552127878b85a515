"""Runs the kernels of flash-linear-attention on a processor: Triton's interpreter, where it falls short of them mended.

Triton chooses the settings of a kernel by timing them on a GPU; here the first ones do. Its interpreter counts loops in
Python's numbers, of which kernels want Triton's type, and does not know functions that a kernel's module has renamed.
"""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Iterator
from typing import Any


def use(folder: str) -> None:
    """Makes the packages in a folder known, and runs their kernels in the interpreter from now on."""
    os.environ["TRITON_INTERPRET"] = "1"
    sys.path.insert(0, folder)
    from triton.runtime import autotuner, interpreter

    autotuner.Autotuner.run = _first_settings
    execute = interpreter.GridExecutor.__call__

    def executed(self: Any, *args: Any, **settings: Any) -> None:
        known = self.fn.__globals__
        known["range"] = _counts
        if "gather" in known:
            known["gather"] = _gather
        execute(self, *args, **settings)

    interpreter.GridExecutor.__call__ = executed


class Count(int):
    """A number of a loop, as kernels use it."""

    def to(self, _: Any) -> Count:
        """Returns itself: it is as long as any type."""
        return self


def _counts(*limits: Any) -> Iterator[Count]:
    whole = (int(limit.handle.data.item()) if hasattr(limit, "handle") else int(limit) for limit in limits)
    return (Count(number) for number in builtins.range(*whole))


def _gather(*args: Any, **settings: Any) -> Any:
    from triton import language

    return language.gather(*args, **settings)


def _first_settings(self: Any, *args: Any, grid: Any, warmup: bool, **settings: Any) -> Any:
    return self.fn[grid](*args, **settings, **self.configs[0].kwargs)
