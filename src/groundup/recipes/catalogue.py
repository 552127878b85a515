"""What can be named: models, corpora, hardware; rows of plain figures, with units in their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from groundup.families import FAMILIES
from groundup.model.model import Model
from groundup.planner import books, units
from groundup.planner.hardware import Device, devices
from groundup.planner.machine import calibrate
from groundup.recipes.settings import Run
from groundup.recipes.train import RECIPES


def models() -> list[dict[str, Any]]:
    """Returns the presets with their family, parameters, context and vocabulary."""
    return [_model(family.name, name, make()) for family in FAMILIES for name, make in family.presets.items()]


def _model(family: str, name: str, spec: Model) -> dict[str, Any]:
    *_, last = spec.stacks.values()
    return {
        "model": name,
        "family": family,
        "parameters": books.params(spec),
        "layers": spec.depth,
        "width": last.width,
        "context": spec.longest,
        "vocabulary": last.vocab,
    }


def recipes() -> list[dict[str, Any]]:
    """Returns what `groundup train` takes: the runs that have a name, and the forms of others."""
    return [
        *({"recipe": name, "what": _run(make())} for name, make in RECIPES.items()),
        {"recipe": "MODEL", "what": "any model, from its first weights, with --time, --tokens or --steps"},
        {"recipe": "RUN/config.yaml", "what": "the run that it describes, once more"},
    ]


def _run(run: Run) -> str:
    params = units.count(books.params(run.model))
    return f"{params} parameters on {run.data.source}, steps of {run.accumulate} x {run.rows} x {run.length} tokens"


def corpora() -> list[dict[str, Any]]:
    """Returns the sources that need no file of the user's, and the forms of those that do."""
    return [
        {"source": "python", "what": "the source code of this Python's standard library"},
        {"source": "FILE or FOLDER", "what": ".txt .md .rst .py .jsonl .tsv, also as .gz or .zst, and .parquet"},
        {"source": "CORPUS", "what": "a folder that groundup data build, or an earlier run, has made"},
        {"source": "ORGANISATION/NAME", "what": "a data set of the Hugging Face hub (pip install 'groundup[hub]')"},
    ]


def hardware() -> list[dict[str, Any]]:
    """Returns this machine as it was measured, and the devices that makers publish, by what ``--on`` takes."""
    here = calibrate()
    this = {
        "name": "this",
        "processor": here.processor,
        "memory_bytes": here.memory_bytes,
        "bandwidth_bytes_per_second": here.bandwidth_bytes_per_second,
        **{f"{dtype}_flops_per_second": here.matrix_flops_per_second.get(dtype) for dtype in ("float32", "bfloat16")},
        "watts": None,
        "usd_per_hour": None,
    }
    return [this, *map(_published, devices().values())]


def _published(device: Device) -> dict[str, Any]:
    return {
        "name": device.name,
        "processor": ", ".join(device.aliases),
        "memory_bytes": device.memory_bytes,
        "bandwidth_bytes_per_second": device.bandwidth_bytes_per_second,
        **{f"{dtype}_flops_per_second": device.flops_per_second.get(dtype) for dtype in ("float32", "bfloat16")},
        "watts": device.watts,
        "usd_per_hour": device.usd_per_hour,
    }


CATALOGUES: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "models": models,
    "recipes": recipes,
    "corpora": corpora,
    "hardware": hardware,
}
