"""What this machine is, what is installed, what is missing and how to get it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil

import torch

from groundup.devices import best, pick_device
from groundup.planner import units
from groundup.planner.machine import Machine, calibrate

EXTRAS = {
    "huggingface_hub": ("hub", "models and data sets by hub id"),
    "pyarrow": ("parquet", ".parquet files"),
    "zstandard": ("zstd", ".zst files"),
    "jinja2": ("chat", "chat templates"),
}


def describe(machine: Machine) -> dict[str, str]:
    """Returns what a machine is and how fast it was measured to be, by name, in words."""
    rates = {f"{name} products": units.flops(rate) + "/s" for name, rate in machine.matrix_flops_per_second.items()}
    return {
        "processor": f"{machine.processor}, {machine.cores} cores" if machine.device == "cpu" else machine.processor,
        "memory": units.bytes_(machine.memory_bytes),
        **rates,
        "reading memory": units.bytes_(machine.bandwidth_bytes_per_second) + "/s",
    }


def examine(*, fresh: bool = False) -> dict[str, str]:
    """Returns findings by name, in words: the machine, the versions, and what is missing with the way to get it.

    Args:
        fresh: measure the machine anew instead of taking the cached figures.
    """
    place = pick_device()
    compiler = shutil.which("g++") or shutil.which("clang++")
    findings = {
        "groundup": importlib.metadata.version("groundup"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": str(place),
        **describe(calibrate(fresh=fresh)),
        "products run in": str(best(place)).removeprefix("torch."),
        "torch.compile": f"yes, with {compiler}" if compiler else "no C++ compiler: apt install g++ (runs go without)",
    }
    for package, (extra, purpose) in EXTRAS.items():
        there = importlib.util.find_spec(package) is not None
        findings[purpose] = "yes" if there else f"no: pip install 'groundup[{extra}]'"
    return findings
