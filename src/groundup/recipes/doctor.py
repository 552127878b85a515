"""What this machine is, what is installed, what is missing and how to get it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
from typing import Any

import torch

from groundup.planner import machine, units
from groundup.training.precision import best, pick_device

EXTRAS = {
    "huggingface_hub": ("hub", "models and data sets by hub id"),
    "pyarrow": ("parquet", ".parquet files"),
    "zstandard": ("zstd", ".zst files"),
    "jinja2": ("chat", "chat templates"),
    "tensorboard": ("board", "TensorBoard events"),
}


def examine(*, calibrate: bool = False) -> dict[str, Any]:
    """Returns findings by name, in words.

    Args:
        calibrate: measure the machine anew instead of taking the cached figures.
    """
    place = pick_device()
    found = machine.calibrate(fresh=calibrate)
    figures = found.to_dict()
    compiler = shutil.which("g++") or shutil.which("clang++")
    findings: dict[str, Any] = {
        "groundup": importlib.metadata.version("groundup"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": str(place),
        "products run in": str(best(place)).removeprefix("torch."),
        "processor": figures["processor"],
        "cores": figures["cores"],
        "memory": units.bytes_(figures["memory_bytes"]),
        **{f"measured {name}": units.flops(rate) + "/s" for name, rate in figures["matrix_flops_per_second"].items()},
        "measured bandwidth": units.bytes_(figures["bandwidth_bytes_per_second"]) + "/s",
        "torch.compile": f"yes, with {compiler}" if compiler else "no C++ compiler: apt install g++ (runs go without)",
    }
    for package, (extra, purpose) in EXTRAS.items():
        there = importlib.util.find_spec(package) is not None
        findings[purpose] = "yes" if there else f"no: pip install 'groundup[{extra}]'"
    return findings
