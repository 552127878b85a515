"""Attention on a processor beside PyTorch's fused kernel: forward and backward, interleaved, in one run.

    python bench/attention.py [--rounds 9]

Prints the median milliseconds of both, and their ratio round by round (median, lowest, highest).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.ops import attention
from groundup.training.allocator import keep_freed_memory
from sides import ratios

SIZES = ((16, 6, 6, 256, 64), (2, 12, 12, 512, 64), (8, 8, 8, 512, 64), (8, 8, 2, 512, 64), (1, 8, 8, 2048, 64))


def sides(
    rows: int, heads: int, kv_heads: int, tokens: int, width: int, dtype: torch.dtype
) -> list[Callable[[], object]]:
    """Returns forward and backward through PyTorch's kernel and through groundup's operation."""

    def drawn(heads: int) -> Tensor:  # laid out as linear maps make them
        return torch.randn(rows, tokens, heads, width, dtype=dtype).transpose(1, 2).requires_grad_()

    q, k, v = drawn(heads), drawn(kv_heads), drawn(kv_heads)
    grad = torch.randn_like(q)
    scale = width**-0.5

    def fused() -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=heads != kv_heads)

    def ours() -> Tensor:
        return attention.attend(q, k, v, allowed=None, causal=True, scale=scale)

    return [lambda forward=forward: torch.autograd.grad(forward(), (q, k, v), grad) for forward in (fused, ours)]


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(2)
    keep_freed_memory()
    print(f"{'rows, heads, key heads, tokens, width':38}{'type':10}{'fused':>8}{'here':>8}   times as fast")
    for size in SIZES:
        for dtype in (torch.bfloat16, torch.float32):
            runs = sides(*size, dtype)
            for run in runs * 2:
                run()
            fused, ours = zip(*([1e3 * seconds(run) for run in runs] for _ in range(rounds)), strict=True)
            middle, lowest, highest = ratios(ours, fused)
            middles = f"{statistics.median(fused):8.1f}{statistics.median(ours):8.1f}"
            spread = f"{middle:.2f} ({lowest:.2f} to {highest:.2f})"
            print(f"{size!s:38}{str(dtype).removeprefix('torch.'):10}{middles}   {spread}", flush=True)


if __name__ == "__main__":
    main()
