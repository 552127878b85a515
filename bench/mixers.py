"""Training with each mixer on a processor: tokens a second and memory, at about 10M parameters.

    python bench/mixers.py [--contexts 512 4096] [--mixers attention gla ...] [--tokens 4096] [--rounds 3] [--threads 2]
    python bench/mixers.py --grow [--plot FILE.svg]

Every model has 8 layers of width 256, heads of 64, a SwiGLU, and 4,096 token ids, and reads ``--tokens`` tokens a step
in rows of the context. Prints the median of the rounds and the most memory above the weights' that
a process of its own has held. ``--grow`` takes one row a step, from 512 to 16,384 tokens, and draws seconds and
memory by context. The reference of linear attention, token by token, is there as ``definition``.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn import functional as F

from groundup.mixers.attention import Attention
from groundup.mixers.base import MixerSpec
from groundup.mixers.linear_attention import LinearAttention
from groundup.mixers.mamba import Mamba
from groundup.mixers.mlp import GatedMLP
from groundup.model.decoder import Decoder
from groundup.model.layer import Layer
from groundup.model.residual import Residual
from groundup.ops import linear_attention
from groundup.parts.decay import FixedDecay, HeadDecay, LowRankDecay
from groundup.parts.feature import Plain, RandomPositive, UnitLength
from groundup.parts.position import RoPE
from groundup.parts.reading import Gated, Normed
from groundup.parts.update import Delta
from groundup.training.allocator import keep_freed_memory

WIDTH, LAYERS, VOCAB = 256, 8, 4096
LINEAR = LinearAttention(heads=4, key_heads=4, key_width=64, value_width=64)
MIXERS: dict[str, MixerSpec] = {
    "attention": Attention(heads=4, kv_heads=4, head_width=64),
    "linear": LINEAR,
    "performer": LINEAR.replace(feature=RandomPositive(features=128)),
    "retention": LINEAR.replace(feature=Plain(), position=RoPE(), decay=FixedDecay(), reading=Gated()),
    "gla": LINEAR.replace(feature=Plain(), decay=LowRankDecay(), reading=Gated()),
    "deltanet": LINEAR.replace(feature=UnitLength(), update=Delta(), reading=Normed(), conv=4),
    "gated-deltanet": LINEAR.replace(feature=UnitLength(), update=Delta(), decay=HeadDecay(), reading=Gated(), conv=4),
    "mamba": Mamba(states=16, rank=16),
    "definition": LINEAR,
}
GROWING = (512, 1024, 2048, 4096, 8192, 16_384)


def peak_bytes() -> int:
    """Returns the most memory that this process has held."""
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def measure(name: str, *, rows: int, context: int, rounds: int, threads: int) -> dict[str, float]:
    """Returns the parameters, the median seconds of a step, and the bytes that steps held above the weights."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    if name == "definition":
        linear_attention.chunked = linear_attention.reference
    mixer = MIXERS[name]
    layer = Layer(mix=Residual(mixer), ffn=Residual(GatedMLP(hidden=768)))
    model = Decoder(width=WIDTH, vocab=VOCAB, context=context, layers=(layer,) * LAYERS).build()
    ids = torch.randint(VOCAB, (rows, context + 1), generator=torch.Generator().manual_seed(0))

    def step() -> float:
        began = time.perf_counter()
        hidden = model.hidden(ids[:, :-1])
        losses = [F.cross_entropy(model.logits(h), t) for h, t in zip(hidden, ids[:, 1:], strict=True)]
        torch.stack(losses).mean().backward()
        model.zero_grad()
        return time.perf_counter() - began

    weights = peak_bytes()
    step()
    seconds = statistics.median(step() for _ in range(rounds))
    parameters = sum(p.numel() for p in model.parameters())
    return {"parameters": parameters, "seconds": seconds, "bytes": peak_bytes() - weights}


def alone(name: str, *, rows: int, context: int, rounds: int, threads: int) -> dict[str, float]:
    """Returns what `measure` does, in a process of its own, whose memory is nobody else's."""
    sizes = [str(size) for size in (rows, context, rounds, threads)]
    told = subprocess.run([sys.executable, __file__, "--alone", name, *sizes], stdout=subprocess.PIPE, check=True)
    return json.loads(told.stdout)


def compare(names: Sequence[str], *, contexts: Sequence[int], tokens: int, rounds: int, threads: int) -> None:
    """Prints a line for each mixer and context."""
    print(f"{'mixer':16}{'parameters':>12}{'context':>9}{'tokens/s':>10}{'memory MB':>11}")
    for context in contexts:
        for name in names:
            found = alone(name, rows=max(1, tokens // context), context=context, rounds=rounds, threads=threads)
            speed = max(tokens, context) / found["seconds"]
            size = f"{found['parameters']:12,.0f}{context:9,}"
            print(f"{name:16}{size}{speed:10,.0f}{found['bytes'] / 1e6:11,.0f}", flush=True)


def grow(names: Sequence[str], *, rounds: int, threads: int, plot: Path | None) -> None:
    """Prints seconds of a step and memory by context, and draws them."""
    found = {}
    print(f"{'mixer':16}" + "".join(f"{context:>16,}" for context in GROWING))
    for name in names:
        found[name] = [alone(name, rows=1, context=context, rounds=rounds, threads=threads) for context in GROWING]
        cells = (f"{one['seconds']:8.2f} s{one['bytes'] / 1e6:4.0f} MB" for one in found[name])
        print(f"{name:16}" + "".join(f"{cell:>16}" for cell in cells), flush=True)
    if plot is not None:
        draw(found, plot)


def draw(found: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Writes an SVG of seconds and memory by context, both axes logarithmic."""
    lines = []
    for left, key, unit, label in ((0, "seconds", 1.0, "seconds a step"), (480, "bytes", 1e6, "memory, MB")):
        heights = {name: [math.log10(max(one[key] / unit, 1e-3)) for one in each] for name, each in found.items()}
        low, high = (end(end(each) for each in heights.values()) for end in (min, max))
        lines.append(f'<text x="{left + 40}" y="20">{label}: {10**low:.3g} to {10**high:.3g}</text>')
        for i, context in enumerate(GROWING):
            lines.append(f'<text x="{left + 40 + 70 * i}" y="390">{context:,}</text>')
        for number, (name, each) in enumerate(heights.items()):
            colour = f"hsl({360 * number // len(heights)} 70% 40%)"
            places = [(left + 40 + 70 * i, 360 - 320 * (y - low) / max(high - low, 1e-9)) for i, y in enumerate(each)]
            points = " ".join(f"{x},{y:.1f}" for x, y in places)
            lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
            x, y = places[-1]
            lines.append(f'<text x="{x + 5}" y="{y:.1f}" fill="{colour}">{name}</text>')
    text = "\n".join(lines)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="980" height="400" font-size="12">\n{text}\n</svg>\n'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contexts", type=int, nargs="+", default=[512, 4096])
    parser.add_argument("--mixers", nargs="+", choices=MIXERS, default=list(MIXERS))
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--grow", action="store_true")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--alone", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        name, *sizes = given.alone
        rows, context, rounds, threads = map(int, sizes)
        print(json.dumps(measure(name, rows=rows, context=context, rounds=rounds, threads=threads)))
    elif given.grow:
        names = [name for name in given.mixers if name != "definition"]
        grow(names, rounds=given.rounds, threads=given.threads, plot=given.plot)
    else:
        sizes = {"tokens": given.tokens, "rounds": given.rounds, "threads": given.threads}
        compare(given.mixers, contexts=given.contexts, **sizes)


if __name__ == "__main__":
    main()
