"""What a process really used: the measured side of an audit.

On Linux the peak is VmHWM of /proc/self/status, which can be reset; elsewhere it is ``ru_maxrss``,
which cannot. On CUDA it is what PyTorch's allocator held at most, the CUDA context (some 0.5 GB) not counted.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")
_STAT = Path("/proc/stat")  # proc(5): of all processors together, in clock ticks


def process_bytes() -> int:
    """Returns the memory that this process holds now, in bytes; its peak where the system does not tell.

    What glibc keeps of memory that was freed is given back to the system first, so that it is not counted.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
    now = status_bytes("VmRSS")
    return peak_rss_bytes() if now is None else now


def peak_rss_bytes() -> int:
    """Returns the most memory that this process held since it began, or since `reset_peak`, in bytes."""
    peak = status_bytes("VmHWM")
    if peak is not None:
        return peak
    import resource  # not on Windows

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024  # bytes on macOS, KiB elsewhere: getrusage(2)


def peak_bytes(device: torch.device | str = "cpu") -> int:
    """Returns the peak on a device: of the process for the CPU, of PyTorch's allocator for CUDA."""
    device = torch.device(device)
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_rss_bytes()


def reset_peak(device: torch.device | str = "cpu") -> bool:
    """Forgets the peak so far, so that the next reading is of what follows; returns whether that was allowed."""
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        _RESET.write_text("5")  # proc(5), /proc/pid/clear_refs
    except OSError:
        return False
    return True


def held_bytes(device: torch.device | str = "cpu") -> int:
    """Returns what is held on a device now: by the process for the CPU, by PyTorch's allocator for CUDA."""
    device = torch.device(device)
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else process_bytes()


def peak_from_here(device: torch.device | str = "cpu") -> Callable[[], int | None]:
    """Returns the function that tells the peak on a device from now on, in bytes.

    It returns None where nobody knows it: the system does not forget the peak so far, and what followed is below that.
    """
    before = 0 if reset_peak(device) else peak_bytes(device)

    def told() -> int | None:
        peak = peak_bytes(device)
        return peak if peak > before else None

    return told


def others_from_here() -> Callable[[], float | None]:
    """Returns the function that tells the share of the processor that other processes took from now on, 0 to 1.

    Other guests of the same machine count too. It returns None where the system does not tell: only Linux does.
    """
    began, before = time.monotonic(), _others_seconds()

    def told() -> float | None:
        now = _others_seconds()
        if before is None or now is None:
            return None
        return max(now - before, 0.0) / (time.monotonic() - began) / (os.cpu_count() or 1)

    return told


def _others_seconds() -> float | None:
    """Seconds of the processor's cores that others than this process and its children took, since the system began."""
    try:
        ticks = [int(count) for count in _STAT.read_text().split("\n", 1)[0].split()[1:]]
        user, nice, system, _, _, interrupts, soft_interrupts, stolen = ticks[:8]
    except (OSError, ValueError):
        return None
    busy = (user + nice + system + interrupts + soft_interrupts + stolen) / os.sysconf("SC_CLK_TCK")
    return busy - sum(os.times()[:4])


def count_flops(run: Callable[[], Any]) -> int:
    """Returns the operations that ``run`` does, counted by PyTorch's own FlopCounterMode.

    That counter does not know the CPU's fused attention (torch 2.13 lists the CUDA kernels only), so attention is
    run as the plain products it stands for, whose backward is then counted without the scores that a fused kernel
    computes twice.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def status_bytes(field: str) -> int | None:
    """Returns a figure of /proc/self/status, such as ``VmRSS``, in bytes; None where there is none."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    found = next((line.split() for line in lines if line.startswith(f"{field}:")), None)
    return None if found is None else int(found[1]) * 1024
