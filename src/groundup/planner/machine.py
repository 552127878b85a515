"""What this machine can do, measured in a few seconds and remembered.

Every rate is that of PyTorch's own kernels at sizes that small models use, because that is what a training step gets;
no data sheet is asked. The file lies in the user's cache folder, one for each processor, number
of threads and version of PyTorch, and is measured again when it is missing or cannot be read.
"""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from groundup.devices import best, pick_device
from groundup.planner import cache_files, limits
from groundup.planner.benchmark import Sample, samples

FORMAT = 5  # of the file; a file of another format is measured again
BUSY = 0.6  # processes for each core from which on a measurement is not taken for good


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A device and its measured rates.

    Attributes:
        processor: its name.
        device: ``cpu``, ``cuda`` or ``mps``.
        cores: threads that PyTorch uses; multiprocessors on CUDA.
        memory_bytes: of the device; on a processor, what this process may have.
        torch: the version of PyTorch that was measured.
        load: processes that wanted to run, for each of the processor's cores, over the minute before; 0 where the
            system does not tell.
        samples: what was measured.
    """

    processor: str
    device: str
    cores: int
    memory_bytes: int
    torch: str
    load: float
    samples: tuple[Sample, ...]

    @property
    def matrix_flops_per_second(self) -> dict[str, float]:
        """The best measured rate of products of matrices by type: ``float32``, and ``bfloat16`` where it is native."""
        best: dict[str, float] = {}
        for sample in self.samples:
            if sample.name == "product":
                best[sample.dtype] = max(best.get(sample.dtype, 0.0), sample.per_second)
        return best

    def matrix_rate(self, dtype: str) -> float:
        """Returns the best measured rate of products in a type, in operations per second.

        Products in a type that was not measured, because it is not native, take the best rate that was: the true one
        is lower.

        Args:
            dtype: its name, such as ``bfloat16``.
        """
        rates = self.matrix_flops_per_second
        return rates.get(dtype, max(rates.values()))

    @property
    def bandwidth_bytes_per_second(self) -> float:
        """The measured rate of reading memory: one tensor larger than the caches, summed."""
        return next(sample.per_second for sample in self.samples if sample.name == "read")

    def to_dict(self) -> dict[str, Any]:
        """Returns the machine as plain data, units in the names."""
        return {
            "processor": self.processor,
            "device": self.device,
            "cores": self.cores,
            "memory_bytes": self.memory_bytes,
            "torch": self.torch,
            "load": self.load,
            "matrix_flops_per_second": self.matrix_flops_per_second,
            "bandwidth_bytes_per_second": self.bandwidth_bytes_per_second,
            "samples": [asdict(sample) for sample in self.samples],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Machine:
        """Returns the machine that `to_dict` wrote.

        Raises:
            KeyError, TypeError, ValueError: the data is something else.
        """
        machine = cls(
            processor=str(data["processor"]),
            device=str(data["device"]),
            cores=int(data["cores"]),
            memory_bytes=int(data["memory_bytes"]),
            torch=str(data["torch"]),
            load=float(data["load"]),
            samples=tuple(
                Sample(str(s["name"]), str(s["dtype"]), tuple(map(int, s["size"])), float(s["per_second"]))
                for s in data["samples"]
            ),
        )
        if not all(sample.per_second > 0 for sample in machine.samples) or not machine.matrix_flops_per_second:
            raise ValueError("a machine without rates")
        return machine


def calibrate(*, device: torch.device | str | None = None, fresh: bool = False) -> Machine:
    """Returns the rates of a device; they are measured, in about three seconds, the first time.

    What was measured while other programs used the machine is measured again when they use it less.

    Args:
        device: what is measured; None means the first that is there of CUDA, Apple's GPU and the processor.
        fresh: measure again even if there is a file.

    Raises:
        ConfigError: no such device on this machine.
    """
    device = pick_device(device)
    about = {
        "processor": _processor(device),
        "device": device.type,
        "cores": _cores(device),
        "torch": torch.__version__,
    }
    memory = _memory_bytes(device)
    file = cache_files.path("machine", {"format": FORMAT, **about})
    load = _load()
    if not fresh:
        with suppress(KeyError, TypeError, ValueError):
            known = Machine.from_dict(cache_files.read(file))
            if known.load <= max(BUSY, 2 * load):
                return replace(known, memory_bytes=memory)
    dtypes = dict.fromkeys((torch.float32, best(device)))
    machine = Machine(**about, memory_bytes=memory, load=load, samples=tuple(samples(device, tuple(dtypes))))
    cache_files.write(file, machine.to_dict())
    return machine


def _processor(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with suppress(OSError):  # Linux; elsewhere Python's own word for it
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cores(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).multi_processor_count
    return torch.get_num_threads()


def _load() -> float:
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except (AttributeError, OSError):  # Windows has no such function
        return 0.0


def _memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return limits.memory_bytes()
