"""Where a run computes, in which number format its matrix products run, and what becomes of the memory it frees."""

from __future__ import annotations

import ctypes
import os
import platform
from contextlib import AbstractContextManager, nullcontext

import torch

from groundup.errors import ConfigError

NATIVE_BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16")  # x86 tiles, x86 vectors, ARM; names of torch.cpu
NAMES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def pick_device(name: str | None = None) -> torch.device:
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
        raise ConfigError(f"device {name!r} does not exist; this machine has {', '.join(found)}") from None
    if (chosen.index or 0) >= there.get(chosen.type, 0):
        raise ConfigError(f"device {name!r} is not on this machine, which has {', '.join(found)}")
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


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Returns a context in which matrix products run in ``dtype`` and the weights stay as they are."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
MALLOC_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Makes glibc keep the memory that this process frees, for the next step to use; returns whether it did.

    By default glibc maps large blocks afresh and gives them back when they are freed, so that every step has the
    system fault in and clear the same gigabyte. For six layers of width 384 at 16 x 256 tokens, AdamW, bfloat16, on
    two cores with glibc 2.36, a step then takes

        vocabulary 4,096     86,500 page faults and 0.21 s of system time; with this 200 and 0.01 s
        vocabulary 50,304   334,000 page faults and 0.87 s of system time; with this 400 and 0.02 s

    It sets M_MMAP_MAX to 0 (no block is mapped on its own; M_MMAP_THRESHOLD alone cannot be raised above 32 MiB,
    which chunks of logits exceed) and M_TRIM_THRESHOLD to its largest value (the heap is never given back). Fewer
    arenas or more padding (M_ARENA_MAX, M_TOP_PAD) changed nothing.

    The cost: the process stays at its peak until it ends, and the peak rises through fragmentation, by under 1% and
    6% above; a program that frees and makes one large aligned block again and again may hold up to eight of it.
    It holds for the whole process and cannot be undone.

    Nothing is done, and False returned, without glibc's malloc (another system, or tcmalloc and its like through
    LD_PRELOAD) and where the environment already says how malloc is to behave: ``MALLOC_TRIM_THRESHOLD_=131072``,
    glibc's default, turns it off.
    """
    other = platform.libc_ver()[0] != "glibc" or "malloc" in os.environ.get("LD_PRELOAD", "")
    if other or any(name in os.environ for name in MALLOC_SETTINGS):
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_MAX, 0) and libc.mallopt(M_TRIM_THRESHOLD, -1))
