"""Where tensors live, and in which number format matrices are multiplied there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

from groundup.errors import ConfigError

NATIVE_BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16")  # x86 tiles, x86 vectors, ARM; names of torch.cpu
NAMES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def pick_device(name: torch.device | str | None = None) -> torch.device:
    """Returns the device of this name; without one, the first that is there of cuda, mps and cpu.

    Raises:
        ConfigError: no such device, or not on this machine.
    """
    there = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    found = [kind for kind, count in there.items() if count]
    if name is None:
        return torch.device(found[0])
    try:
        chosen = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device {str(name)!r} does not exist; this machine has {', '.join(found)}") from None
    if (chosen.index or 0) >= there.get(chosen.type, 0):
        raise ConfigError(f"device {str(name)!r} is not on this machine, which has {', '.join(found)}")
    return chosen


def best(device: torch.device) -> torch.dtype:
    """Returns bfloat16 where the device multiplies matrices in it by itself, float32 elsewhere.

    A processor must have the instructions and torch the kernels that use them: torch also multiplies bfloat16 where
    it has to be emulated, but slower than float32 (60 times slower on a processor without AVX-512). Apple GPUs do
    not say whether they have bfloat16 arithmetic, and the first two generations emulate it: they get float32.
    """
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        native = any(torch.cpu.get_capabilities().get(name, False) for name in NATIVE_BFLOAT16)
        if native and torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return torch.bfloat16
    return torch.float32


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Returns the dtype of the matrix products for ``bf16``, ``fp32`` or ``auto``, which is `best`.

    Raises:
        ConfigError: another precision; fp16 is left out because its gradients would need scaling.
    """
    if precision == "auto":
        return best(device)
    if precision not in NAMES:
        raise ConfigError(f"precision={precision!r} does not exist; choose auto, {' or '.join(NAMES)}")
    return NAMES[precision]


def compiler() -> str | None:
    """Returns the path of the C++ compiler that torch.compile needs on a processor; None where there is none."""
    return next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Returns a context in which matrix products run in ``dtype`` and the weights stay as they are."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)


_rehearsed: list[str] = []  # the kind of device that is rehearsed for; the last one counts


@contextmanager
def rehearsing(kind: str) -> Iterator[None]:
    """Makes `kind_of` say so of every tensor: a step can then be gone through for a device that is not there."""
    _rehearsed.append(kind)
    try:
        yield
    finally:
        _rehearsed.pop()


def kind_of(x: Tensor) -> str:
    """Returns ``cpu``, ``cuda`` or ``mps``: the kind of device whose ways are chosen for a tensor."""
    return _rehearsed[-1] if _rehearsed else x.device.type


def for_products(x: Tensor) -> Tensor:
    """Returns ``x`` in the number format of the matrix products that read it: casting once serves them all."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x
