"""How far plans are off: each of many trainings is planned, then measured in a process of its own.

    python bench/plan_error.py [ARCHITECTURE ...] [--json FILE] [--plot FILE.svg]

Sixteen architectures in three shapes: small and short, medium in float32 or with accumulation, larger and longer. What
is compared: the peak memory of a step, the median time of a step, and of a token that is written. The machine's rates
are measured anew before each architecture, for shared machines drift; leave it alone meanwhile. Printed are all rows,
then the median and the 95th percentile of the errors; an error is planned over measured, less 1. Plans are those of a
fresh installation, which no run has corrected. The plot needs pip install 'groundup[plots]'.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from trial import FEWER, PROMPT, WARM, Trial, measured, new_cache

ARCHITECTURES = (
    "gpt2",
    "llama-3.2-1b",
    "bloom-560m",
    "palm-8b",
    "gemma-2-2b",
    "mixtral-8x7b",
    "deepseek-v2-lite",
    "bert-base",
    "longformer-base-4096",
    "t5-base",
    "mamba2-130m",
    "rwkv-4-169m",
    "s4-224m",
    "retnet-1.3b",
    "gated-deltanet-1.3b",
    "lstm-zaremba-medium",
)
SHAPES: tuple[dict[str, Any], ...] = (
    {"params": 3e6, "vocab": 4096, "rows": 16, "context": 128},
    {"params": 10e6, "vocab": 8192, "rows": 4, "context": 256, "precision": "fp32", "accumulate": 2},
    {"params": 25e6, "vocab": 16384, "rows": 4, "context": 512, "optimizer": "muon"},
)
QUANTITIES = {"peak_bytes": "peak memory", "step_seconds": "time of a step", "token_seconds": "time of a token"}


def trials(architecture: str) -> list[Trial]:
    every = [Trial(preset=architecture, **shape) for shape in SHAPES]
    return [trial if trial.preset in FEWER else replace(trial, tokens=24) for trial in every]


def compared(trial: Trial) -> dict[str, Any]:
    """Returns a trial with what was planned, what was measured, and the errors."""
    planned, found = predicted(trial), measured(trial)
    errors = {name: planned[name] / found[name] - 1 for name in QUANTITIES if found.get(name) and planned.get(name)}
    return {"trial": asdict(trial), "planned": planned, "measured": found, "errors": errors}


def predicted(trial: Trial) -> dict[str, Any]:
    import torch

    from groundup.planner.decoding import decode_seconds
    from groundup.planner.machine import calibrate

    plan, token = trial.plan(), None
    if trial.tokens:
        seen = PROMPT + WARM + trial.tokens // 2
        settings = {"rows": trial.rows, "seen": seen, "machine": calibrate(), "dtype": torch.float32}
        token = decode_seconds(trial.design(), **settings)
    figures = {"peak_bytes": plan.peak_bytes, "step_seconds": plan.step_seconds, "token_seconds": token}
    return {"params": plan.params, **figures}


def show(row: dict[str, Any]) -> None:
    trial, planned, found = row["trial"], row["planned"], row["measured"]
    figures = [
        f"{planned['peak_bytes'] / 2**20:6.0f} {found['peak_bytes'] / 2**20:6.0f} MiB {told(row, 'peak_bytes')}",
        f"{1e3 * planned['step_seconds']:7.1f} {1e3 * found['step_seconds']:7.1f} ms {told(row, 'step_seconds')}",
    ]
    if "token_seconds" in row["errors"]:
        two = (1e3 * side["token_seconds"] for side in (planned, found))
        figures.append("{:6.2f} {:6.2f} ms ".format(*two) + told(row, "token_seconds"))
    shape = f"{trial['accumulate']}x{trial['rows']}x{trial['context']} {trial['precision']} {trial['optimizer']}"
    print(f"{trial['preset']:22s} {planned['params'] / 1e6:5.1f}M {shape:22s} " + "   ".join(figures), flush=True)


def told(row: dict[str, Any], quantity: str) -> str:
    return f"{100 * row['errors'][quantity]:+6.1f}%"


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the median and the 95th percentile of the errors of each quantity."""
    lines = []
    for quantity, name in QUANTITIES.items():
        found = sorted(abs(row["errors"][quantity]) for row in rows if quantity in row["errors"])
        if found:
            last = found[math.ceil(0.95 * len(found)) - 1]
            middle = statistics.median(found)
            lines.append(f"{name:16s} {len(found):3d} runs: median {middle:.1%}, 95th percentile {last:.1%}")
    return "\n".join(lines)


def plot(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Draws what was planned over what was measured, a panel for each quantity."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    present = [quantity for quantity in QUANTITIES if any(quantity in row["errors"] for row in rows)]
    figure, panels = plt.subplots(1, len(present), figsize=(4.6 * len(present), 4.4), squeeze=False)
    for quantity, panel in zip(present, panels[0], strict=True):
        points = [
            (row["measured"][quantity], row["planned"][quantity], row["trial"]["preset"])
            for row in rows
            if quantity in row["errors"]
        ]
        scale = 2**-20 if quantity == "peak_bytes" else 1e3
        for name in dict.fromkeys(point[2] for point in points):
            own = [point for point in points if point[2] == name]
            panel.scatter([scale * p[0] for p in own], [scale * p[1] for p in own], s=18, label=name)
        ends = [scale * side(min(point[:2]) for point in points) for side in (min, max)]
        panel.plot(ends, ends, color="#888", linewidth=1)
        panel.set(xscale="log", yscale="log", title=QUANTITIES[quantity])
        unit = "MiB" if quantity == "peak_bytes" else "ms"
        panel.set(xlabel=f"measured, {unit}", ylabel=f"planned, {unit}")
    panels[0][0].legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(file)


def main() -> None:
    from groundup.planner.machine import calibrate

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("architectures", nargs="*", default=[])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    unknown = set(arguments.architectures) - set(ARCHITECTURES)
    if unknown:
        parser.error(f"no architecture {', '.join(sorted(unknown))}; known: {', '.join(ARCHITECTURES)}")
    with new_cache():
        machine = calibrate()
        print(f"on {machine.processor}, {machine.cores} cores, torch {machine.torch}; planned, measured, error")
        rows = []
        for name in arguments.architectures or ARCHITECTURES:
            calibrate(fresh=True)
            for trial in trials(name):
                rows.append(compared(trial))
                show(rows[-1])
    print(summary(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    sys.exit(main())
