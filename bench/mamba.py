"""Training speed and memory of recurrent mixers beside transformers' PyTorch path, interleaved, in one run.

    python bench/mamba.py [CASE ...] [--rounds 5]

Each side is a process of its own, warmed up by one step; then the sides take turns. Models have about 10 million
parameters, everything is in float32, the optimizer is fused AdamW on both sides. Printed are tokens/s (median of the
rounds), the ratio round by round (median, lowest, highest) and the peak of resident memory. transformers' Mamba is a
loop over tokens whose backward adds up a gradient of all tokens for each of them: at 4,096 tokens one step takes it
minutes, so that one round is all it is given there (--slow gives all rounds).
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

WIDTH, LAYERS, VOCAB, STATES, HEAD_WIDTH = 320, 12, 4096, 16, 64


@dataclass(frozen=True)
class Case:
    family: str
    rows: int
    context: int
    rounds: int | None = None  # fewer than the others get


CASES = {
    "mamba-512": Case("mamba", rows=4, context=512),
    "mamba-4096": Case("mamba", rows=1, context=4096, rounds=1),
    "mamba2-512": Case("mamba2", rows=4, context=512),
    "mamba2-4096": Case("mamba2", rows=1, context=4096),
}


def our_model(case: Case) -> Any:
    from groundup.families.mamba import mamba
    from groundup.families.mamba2 import mamba2

    sizes = {"width": WIDTH, "layers": LAYERS, "vocab": VOCAB, "context": case.context}
    if case.family == "mamba":
        return mamba(**sizes, states=STATES).build()
    return mamba2(**sizes, states=HEAD_WIDTH, head_width=HEAD_WIDTH).build()


def their_model(case: Case) -> Any:
    from transformers import Mamba2Config, Mamba2ForCausalLM, MambaConfig, MambaForCausalLM

    sizes = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "vocab_size": VOCAB, "tie_word_embeddings": True}
    if case.family == "mamba":
        return MambaForCausalLM(MambaConfig(**sizes, state_size=STATES))
    heads = 2 * WIDTH // HEAD_WIDTH
    config = Mamba2Config(**sizes, num_heads=heads, head_dim=HEAD_WIDTH, state_size=HEAD_WIDTH, n_groups=1)
    return Mamba2ForCausalLM(config)


def serve(side: str, case: Case) -> None:
    """Answers each line of input with the seconds of one step and the peak memory."""
    import torch
    from torch.nn import functional as F

    torch.set_num_threads(2)
    torch.manual_seed(0)
    model = (our_model if side == "ours" else their_model)(case).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids = torch.randint(0, VOCAB, (case.rows, case.context + 1))

    def step() -> None:
        out = model(ids[:, :-1])
        logits = out if side == "ours" else out.logits
        F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()

    parameters = sum(p.numel() for p in model.parameters())
    for _ in sys.stdin:
        began = time.perf_counter()
        step()
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": seconds, "peak_bytes": peak, "parameters": parameters}), flush=True)


def start(side: str, name: str) -> Callable[[], dict[str, float]]:
    command = [sys.executable, __file__, "--serve", side, name]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin and process.stdout
    asked, told = process.stdin, process.stdout

    def step() -> dict[str, float]:
        asked.write("\n")
        asked.flush()
        return json.loads(told.readline())

    return step


def compare(name: str, *, rounds: int) -> None:
    case, tokens = CASES[name], CASES[name].rows * CASES[name].context
    ours, theirs = (start(side, name) for side in ("ours", "theirs"))
    for side in (ours, theirs) if case.rounds is None else (ours,):
        side()
    taken = [(ours(), theirs()) for _ in range(rounds)]
    speeds = [statistics.median(tokens / pair[i]["seconds"] for pair in taken) for i in (0, 1)]
    ratios = sorted(b["seconds"] / a["seconds"] for a, b in taken)
    memory = [pair["peak_bytes"] / 2**30 for pair in taken[-1]]
    print(
        f"{name:12} {taken[0][0]['parameters'] / 1e6:5.1f}M {case.rows} x {case.context:<5}"
        f" {speeds[0]:9,.0f} {speeds[1]:9,.0f} tokens/s"
        f"   {statistics.median(ratios):6.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f}) times as fast"
        f"   {memory[0]:5.2f} {memory[1]:5.2f} GiB   {rounds} rounds",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slow", action="store_true")
    parser.add_argument("--serve", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve, CASES[given.cases[0]])
        return
    for name in given.cases or CASES:
        few = None if given.slow else CASES[name].rounds
        compare(name, rounds=few or given.rounds)


if __name__ == "__main__":
    main()
