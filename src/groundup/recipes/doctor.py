"""What this machine is, what is installed, what is missing and how to get it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from dataclasses import dataclass
from typing import Any

import torch

from groundup.devices import best, compiler, pick_device
from groundup.planner import units
from groundup.planner.energy import source_of
from groundup.planner.machine import Machine, calibrate

EXTRAS = {
    "huggingface_hub": ("hub", "models and data sets by hub id"),
    "pyarrow": ("parquet", ".parquet files"),
    "zstandard": ("zstd", ".zst files"),
    "jinja2": ("chat", "chat templates"),
    "tensorboard": ("tensorboard", "events for TensorBoard"),
    "fla": ("kernels", "kernels on a GPU"),
    "matplotlib": ("plots", "plans and scaling laws as plots"),
    "pynvml": ("energy", "measured energy of a GPU"),
}


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What there is to work with.

    Attributes:
        versions: of groundup, Python and PyTorch, by name.
        device: where a run computes.
        dtype: of the products of matrices there.
        machine: the device and its measured rates.
        compiler: the path of the C++ compiler, which torch.compile needs; None where there is none.
        extras: whether each extra of groundup is installed, by name.
        energy: what a run's energy is read from, or why from nothing.
    """

    versions: dict[str, str]
    device: str
    dtype: str
    machine: Machine
    compiler: str | None
    extras: dict[str, bool]
    energy: str

    def to_dict(self) -> dict[str, Any]:
        """Returns the findings as plain data, units in the names."""
        return {
            **self.versions,
            "device": self.device,
            "dtype": self.dtype,
            **figures(self.machine),
            "compiler": self.compiler,
            "extras": self.extras,
            "energy": self.energy,
        }

    def describe(self) -> dict[str, str]:
        """Returns the findings by name, in words: what is missing comes with the way to get it."""
        compiler = (
            f"yes, with {self.compiler}" if self.compiler else "no C++ compiler: apt install g++ (runs go without)"
        )
        return {
            **self.versions,
            "device": self.device,
            **describe(self.machine),
            "products run in": self.dtype,
            "torch.compile": compiler,
            "measured energy": self.energy,
            **{
                purpose: "yes" if self.extras[extra] else f"no: pip install 'groundup[{extra}]'"
                for extra, purpose in EXTRAS.values()
            },
        }


def figures(machine: Machine) -> dict[str, Any]:
    """Returns what a machine is and how fast it was measured to be, as plain figures with units in their names."""
    rates = machine.matrix_flops_per_second.items()
    return {
        "processor": machine.processor,
        "cores": machine.cores,
        "memory_bytes": machine.memory_bytes,
        **{f"{dtype}_flops_per_second": rate for dtype, rate in rates},
        "bandwidth_bytes_per_second": machine.bandwidth_bytes_per_second,
    }


def describe(machine: Machine) -> dict[str, str]:
    """Returns what a machine is and how fast it was measured to be, by name, in words."""
    rates = {f"{name} products": units.flops(rate) + "/s" for name, rate in machine.matrix_flops_per_second.items()}
    return {
        "processor": f"{machine.processor}, {units.several(machine.cores, 'core')}"
        if machine.device == "cpu"
        else machine.processor,
        "memory": units.bytes_(machine.memory_bytes),
        **rates,
        "reading memory": units.bytes_(machine.bandwidth_bytes_per_second) + "/s",
    }


def examine(*, fresh: bool = False) -> Findings:
    """Returns the machine, the versions, and what is installed.

    Args:
        fresh: measure the machine anew instead of taking the cached figures.
    """
    device = pick_device()
    source = source_of(device)
    return Findings(
        energy=source.name or source.why_not,
        versions={
            "groundup": importlib.metadata.version("groundup"),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        device=str(device),
        dtype=str(best(device)).removeprefix("torch."),
        machine=calibrate(fresh=fresh),
        compiler=compiler(),
        extras={extra: importlib.util.find_spec(package) is not None for package, (extra, _) in EXTRAS.items()},
    )
