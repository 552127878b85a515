"""Training RWKV-4 and LSTMs on a processor beside transformers and torch.nn: tokens a second and memory.

    python bench/recurrent.py [--contexts 512 4096] [--tokens 4096] [--rounds 5] [--threads 2]

All models have about 10M parameters and read ``--tokens`` tokens a step in rows of the context. The two sides of a pair
take turns, each in a process of its own; printed are the medians of tokens a second, the most memory held above the
weights, and the ratio of seconds round by round (median, lowest, highest).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from groundup.families.recurrent import lstm
from groundup.families.rwkv import rwkv4
from groundup.training.allocator import keep_freed_memory

PAIRS = (("rwkv-4", "transformers' rwkv"), ("lstm", "torch.nn.LSTM"))
VOCAB = 4096


class TorchLSTM(nn.Module):
    """The same model of torch's own parts."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed, self.lstm = nn.Embedding(VOCAB, width), nn.LSTM(width, width, num_layers=2, batch_first=True)
        self.head = nn.Linear(width, VOCAB)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(self.embed(ids))[0])


def model(name: str) -> Any:
    """Returns a function from ids to logits with parameters."""
    if name == "rwkv-4":
        return rwkv4(width=256, layers=9, vocab=VOCAB).build()
    if name == "lstm":
        return lstm(width=640, vocab=VOCAB).build()
    if name == "torch.nn.LSTM":
        return TorchLSTM(640)
    import transformers

    config = transformers.RwkvConfig(vocab_size=VOCAB, hidden_size=256, num_hidden_layers=9, use_cache=False)
    return transformers.RwkvForCausalLM(config).train()


def peak_bytes() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def serve(name: str, rows: int, context: int, threads: int) -> None:
    """Takes a step for each line read and answers with its seconds and the bytes held above the weights."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    side = model(name)
    ids = torch.randint(VOCAB, (rows, context + 1), generator=torch.Generator().manual_seed(0))
    weights = peak_bytes()
    for _ in sys.stdin:
        began = time.perf_counter()
        made = side(ids[:, :-1])
        logits = made if isinstance(made, torch.Tensor) else made.logits
        F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
        side.zero_grad()
        print(json.dumps([time.perf_counter() - began, peak_bytes() - weights]), flush=True)


def compare(names: tuple[str, str], *, rows: int, context: int, rounds: int, threads: int) -> None:
    sizes = [str(size) for size in (rows, context, threads)]
    command = [sys.executable, __file__, "--serve"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    sides = [subprocess.Popen([*command, name, *sizes], **pipes) for name in names]

    def step(side: Any) -> list[float]:
        side.stdin.write("\n")
        return json.loads(side.stdout.readline())

    found = [[step(side) for side in sides] for _ in range(rounds + 1)][1:]
    for side in sides:
        side.communicate()
    for name, each in zip(names, zip(*found, strict=True), strict=True):
        speed = rows * context / statistics.median(one[0] for one in each)
        print(f"{name:20}{context:9,}{speed:10,.0f}{each[-1][1] / 1e6:11,.0f}", flush=True)
    ratios = sorted(theirs[0] / ours[0] for ours, theirs in found)
    print(f"{'':20}times as fast: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contexts", type=int, nargs="+", default=[512, 4096])
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        name, *sizes = given.serve
        serve(name, *map(int, sizes))
        return
    print(f"{'model':20}{'context':>9}{'tokens/s':>10}{'memory MB':>11}")
    for names in PAIRS:
        for context in given.contexts:
            rows = max(1, given.tokens // context)
            compare(names, rows=rows, context=context, rounds=given.rounds, threads=given.threads)


if __name__ == "__main__":
    main()
