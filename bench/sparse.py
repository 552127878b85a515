"""Attention whose time grows with the length of the text, beside attention to everything, on a processor.

    python bench/sparse.py [--tokens 2048 8192] [--rounds 3] [--threads 2]

Forward and backward of one layer of width 256 with 4 heads, one row. Prints the median milliseconds of each length and
the ratio to attention that sees as much as it may: everything, or, where it is causal, all that came before.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from groundup.context import Context
from groundup.mixers.attention import Attention
from groundup.mixers.base import Mixer, MixerSpec
from groundup.mixers.block_sparse import BlockSparseAttention
from groundup.mixers.chunked import ChunkedAttention
from groundup.mixers.hashed import HashedAttention
from groundup.mixers.local_global import LocalGlobalAttention
from groundup.mixers.low_rank_attention import LowRankAttention
from groundup.parts.init import ScaledNormal
from groundup.parts.mask import Everything
from groundup.parts.position import NoPosition

WIDTH, HEADS = 256, 4


def mixers(longest: int) -> dict[str, tuple[MixerSpec, str]]:
    """Returns the mixers by name, each with the name of the one that it stands beside."""
    heads = {"heads": HEADS, "head_width": WIDTH // HEADS}
    causal = Attention(kv_heads=HEADS, position=NoPosition(), **heads)
    return {
        "everything": (causal.replace(mask=Everything()), "everything"),
        "longformer": (LocalGlobalAttention(reach=256, **heads), "everything"),
        "bigbird": (BlockSparseAttention(block=64, length=-(-longest // 64) * 64, **heads), "everything"),
        "linformer": (LowRankAttention(rank=256, length=longest, **heads), "everything"),
        "causal": (causal, "causal"),
        "hashed": (HashedAttention(factors=(64,), **heads), "causal"),
        "chunked": (ChunkedAttention(**heads), "causal"),
    }


def seconds(mixer: Mixer, tokens: int) -> float:
    """Returns how long a forward and a backward take."""
    x = torch.randn(1, tokens, WIDTH, requires_grad=True)
    start = time.perf_counter()
    mixer(x, Context.whole(x)).sum().backward()
    return time.perf_counter() - start


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, nargs="+", default=[2048, 8192])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    median: dict[tuple[str, int], float] = {}
    for name, (spec, beside) in mixers(max(given.tokens)).items():
        mixer = spec.build(WIDTH)
        ScaledNormal().fill(mixer, residuals=1, seed=0)
        for tokens in given.tokens:
            seconds(mixer, tokens)  # warms up
            median[name, tokens] = statistics.median(seconds(mixer, tokens) for _ in range(given.rounds))
        told = (f"{1000 * median[name, n]:7.0f} ms ({median[name, n] / median[beside, n]:4.2f})" for n in given.tokens)
        print(f"{name:12}", *told)


if __name__ == "__main__":
    main()
