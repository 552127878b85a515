"""Checks the text of every preset in tests/golden, or writes it anew and says which lines moved.

    python tools/golden.py            checks; exits with 1 where a preset is not what its text says
    python tools/golden.py --write    rewrites; the commit then says why each line moved

A text holds the resolved tree of the specs, parameters by part, operations and state per token, and some logits of
the preset made small, with seeded weights. Logits are compared as numbers, for processors differ in last places.
"""

from __future__ import annotations

import argparse
import difflib
import itertools
import math
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from groundup.families import PRESETS  # noqa: E402
from groundup.model.model import Model  # noqa: E402
from groundup.planner import books  # noqa: E402
from groundup.specs import Spec  # noqa: E402
from laws.examples import VOCAB, read, shrink  # noqa: E402

FOLDER = ROOT / "tests" / "golden"
FINGERPRINT = "logits of the shrunk model:"


def text_of(spec: Model) -> str:
    """Returns what is pinned of a preset."""
    parts = books.params_by_part(spec)
    flops = books.forward_flops_per_token(spec, context=spec.longest)
    state = books.state_bytes(spec, rows=1, max_len=spec.longest, dtype=torch.bfloat16)
    lines = [
        *tree(spec),
        "",
        *(f"parameters of {name}: {count:,}" for name, count in parts.items()),
        f"parameters: {books.params(spec):,}",
        f"forward FLOPs per token, rows of {spec.longest:,}: {flops:,.0f}",
        f"state bytes per token, rows of {spec.longest:,} in bfloat16: {state / spec.longest:,.0f}",
        f"{FINGERPRINT} {fingerprint(spec)}",
    ]
    return "\n".join(lines) + "\n"


def tree(value: Spec, *, name: str = "", depth: int = 0, count: int = 1) -> Iterator[str]:
    """Yields a line for every spec of the tree, with all its settings; equal neighbours are one, with their count."""
    inside = {f.name: getattr(value, f.name) for f in fields(value)}
    plain = {k: v for k, v in inside.items() if not isinstance(v, Spec | tuple)}
    settings = ", ".join(f"{k}={v!r}" for k, v in plain.items())
    times = f"{count} x " if count > 1 else ""
    yield "    " * depth + (f"{name}: " if name else "") + f"{times}{type(value).__name__}({settings})"
    for key, item in inside.items():
        for node, run in itertools.groupby(item if isinstance(item, tuple) else (item,)):
            if isinstance(node, Spec):
                yield from tree(node, name=key, depth=depth + 1, count=len(list(run)))


@torch.no_grad()
def fingerprint(spec: Model) -> str:
    """Returns some logits of the shrunk model, to 4 significant digits."""
    model = shrink(spec).build(seed=0).double().eval()
    ids = torch.arange(24) * 7 % VOCAB
    logits = read(model, ids[None])[0]
    places = ((0, 0), (5, 40), (14, 96), (23, 7))
    return " ".join(f"{logits[place, token % logits.shape[1]]:.3e}" for place, token in places)


def same(one: str, other: str) -> bool:
    """Returns whether two lines say the same; logits up to what processors differ by."""
    if not (one.startswith(FINGERPRINT) and other.startswith(FINGERPRINT)):
        return one == other
    a, b = (line.removeprefix(FINGERPRINT).split() for line in (one, other))
    return len(a) == len(b) and all(math.isclose(float(x), float(y), rel_tol=2e-3) for x, y in zip(a, b, strict=True))


def moved(name: str) -> list[str]:
    """Returns the lines of a preset that are not what its file says, with - and + before them."""
    path = FOLDER / f"{name}.txt"
    old = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    new = text_of(PRESETS[name]()).splitlines() if name in PRESETS else []
    if len(old) == len(new) and all(map(same, old, new)):
        return []
    changes = list(difflib.unified_diff(old, new, lineterm="", n=0))[2:]
    return [line for line in changes if not line.startswith("@@")]


def names() -> list[str]:
    """Returns every preset, and every file of one that is gone."""
    return sorted(PRESETS.keys() | {path.stem for path in FOLDER.glob("*.txt")})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="rewrite the files")
    write = parser.parse_args().write
    changes = {name: lines for name in names() if (lines := moved(name))}
    for name, lines in changes.items():
        print(f"{name}\n" + "\n".join(f"    {line}" for line in lines))
        if write and name in PRESETS:
            (FOLDER / f"{name}.txt").write_text(text_of(PRESETS[name]()), encoding="utf-8")
        elif write:
            (FOLDER / f"{name}.txt").unlink()
    if changes and not write:
        print(f"{len(changes)} presets are not what tests/golden says; if that is meant, run it again with --write")
    return int(bool(changes) and not write)


if __name__ == "__main__":
    sys.exit(main())
