"""What PyTorch's libraries of products keep on a processor from the first product on: code and room of their own.

oneDNN multiplies bfloat16 and writes kernels for each size. MKL multiplies float32 and packs parts of both factors
into buffers, which each thread keeps: a larger product gets a new one, and the old one is not given back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from groundup.planner.phantom import Work
from groundup.planner.rehearsal import Part

# The code of two kernels, 252 KiB each, and what oneDNN knows of them. Read off the traces of malloc of GPT-2 and
# Mixtral (torch 2.13); it keeps up to 1,024.
KERNEL_BYTES, MOST_KERNELS = 560 * 2**10, 1024

# MKL 2024.2 packs half of the rows, its thread's share of the columns, and so much of each sum, up to so many of each,
# and takes some bytes besides. Read off the traces of malloc of 13 sizes of products with 1, 2, 4, 8 and 16 threads; 4
# and 16 threads take up to 40% less.
PANEL_ROWS, PANEL_COLUMNS, PANEL_INNER, PANEL_MORE = 384, 3200, 384, 17056


def kernels(parts: Sequence[Part]) -> int:
    """How many sizes of products in bfloat16 oneDNN has kernels for."""
    sizes = {(work.name, work.size) for work in _products(parts, "bfloat16")}
    return min(len(sizes), MOST_KERNELS)


def buffer_bytes(parts: Sequence[Part]) -> int:
    """How much MKL keeps for products in float32, of all threads."""
    threads, largest, every = torch.get_num_threads(), 0, 0
    for work in _products(parts, "float32"):
        m, k, n = work.size
        numbers = min(m // 2, PANEL_ROWS) + min(n // max(threads, 2), PANEL_COLUMNS)
        one = 4 * min(k, PANEL_INNER) * numbers + PANEL_MORE
        if one > largest:
            largest, every = one, every + one
    return threads * every


def _products(parts: Sequence[Part], dtype: str) -> Iterator[Work]:
    """Yields the products in a type, as a step meets them."""
    for works in (*(part.forward for part in parts), *(part.backward for part in reversed(parts))):
        yield from (work for work, _ in works if work.flops and work.dtype == dtype and "attention" not in work.name)
