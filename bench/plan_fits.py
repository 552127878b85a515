"""Whether a plan knows what fits: random trainings, each held to a memory limit, are planned and then run.

    python bench/plan_fits.py [--runs 100] [--limit 1.0] [--seed 0] [--json FILE]

A run is an architecture, a size, rows, a context, a precision, an optimizer, drawn so that about half of them fit in
``--limit`` GiB. It is planned, then run under that limit: in a control group where one can be made, under ulimit
otherwise. Printed are all runs, then how many ran out of memory although the plan said that they fit, and how many ran
although it refused them.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any

from plan_error import ARCHITECTURES
from trial import Trial, measured, new_cache, with_limit


def drawn(draw: random.Random) -> Trial:
    """Returns a random training of some seconds."""
    return Trial(
        preset=draw.choice(ARCHITECTURES),
        params=10 ** draw.uniform(6.3, 7.4),
        vocab=draw.choice((2048, 4096, 8192, 16384)),
        rows=draw.choice((1, 2, 4, 8, 16)),
        context=draw.choice((64, 128, 256, 512)),
        accumulate=draw.choice((1, 1, 2)),
        precision=draw.choice(("bf16", "fp32")),
        optimizer=draw.choice(("adamw", "adamw", "muon")),
    )


def tried(trial: Trial, *, limit_bytes: int, usable: float) -> dict[str, Any]:
    """Returns what was planned and what happened."""
    peak = trial.plan().peak_bytes
    found = measured(with_limit(trial, limit_bytes))
    return {
        "peak_bytes": peak,
        "planned": peak <= usable * limit_bytes,
        "ran": not found.get("out_of_memory"),
        "measured_bytes": found.get("peak_bytes"),
    }


def show(number: int, trial: Trial, row: dict[str, Any]) -> None:
    mib, what = row["peak_bytes"] / 2**20, f"{trial.rows}x{trial.context} {trial.precision} {trial.optimizer}"
    own = "" if row["measured_bytes"] is None else f"{row['measured_bytes'] / 2**20:6.0f} MiB"
    verdict = "fits" if row["planned"] else "refused"
    wrong = "" if row["planned"] == row["ran"] else "   WRONG"
    ran = "ran" if row["ran"] else "out of memory"
    print(f"{number:3d} {trial.preset:22s} {trial.params / 1e6:5.1f}M {what:22s} {mib:6.0f} MiB {verdict:8s} "
          f"{ran:14s}{own}{wrong}", flush=True)  # fmt: skip


def main() -> None:
    from groundup.planner.hardware import USABLE_SHARE

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--limit", type=float, default=1.0, help="GiB")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    draw, limit, rows = random.Random(arguments.seed), int(arguments.limit * 2**30), []
    with new_cache():
        while len(rows) < arguments.runs:
            trial = drawn(draw)
            rows.append(tried(trial, limit_bytes=limit, usable=USABLE_SHARE))
            show(len(rows), trial, rows[-1])
    died = sum(row["planned"] and not row["ran"] for row in rows)
    refused = sum(row["ran"] and not row["planned"] for row in rows)
    fitted = sum(row["planned"] for row in rows)
    print(f"of {len(rows)} runs {fitted} were said to fit, of which {died} ran out of memory; of the "
          f"{len(rows) - fitted} that were refused {refused} ran")  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
