from __future__ import annotations

from typing import Any

import pytest
import torch

from groundup.planner.libraries import KERNEL_BYTES, buffer_bytes, kernels
from groundup.planner.memory import training_memory
from groundup.planner.phantom import Work
from groundup.planner.rehearsal import Part


def part(*forward: Work, backward: tuple[Work, ...] = ()) -> Part:
    names = ("gradient", "optimizer", "kept", "cast", "forward_peak", "backward_peak", "backward_net", "update_peak")
    figures: dict[str, Any] = {f"{name}_bytes": 0 for name in names}
    works = {"forward": tuple((work, 1) for work in forward), "backward": tuple((work, 1) for work in backward)}
    return Part(name="loss", count=1, update=(), **works, **figures)


def product(m: int, k: int, n: int, dtype: str = "float32") -> Work:
    return Work(name="mm", dtype=dtype, size=(m, k, n), flops=2 * m * k * n)


# What malloc was asked for by one of two threads (MKL 2024.2).
TRACED = {
    (1024, 256, 768): 803_488,
    (1024, 384, 1536): 1_786_528,
    (384, 1024, 1536): 1_491_616,
    (2048, 512, 2048): 2_179_744,
    (128, 256, 4096): 2_179_744,
    (2048, 2048, 8192): 5_522_080,
}


@pytest.fixture(autouse=True)
def _two_threads(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)


@pytest.mark.parametrize(("size", "traced"), TRACED.items())
def test_a_thread_packs_as_much_as_mkl_was_seen_to(size, traced):
    assert buffer_bytes([part(product(*size))]) == 2 * traced


def test_a_larger_buffer_comes_beside_the_smaller_ones():
    small, large = (1024, 256, 768), (2048, 2048, 8192)
    rising = part(product(*small), backward=(product(*large),))
    falling = part(product(*large), backward=(product(*small),))
    assert buffer_bytes([rising]) == 2 * (TRACED[small] + TRACED[large])
    assert buffer_bytes([falling]) == 2 * TRACED[large]


def test_kernels_are_counted_once_for_each_size_in_bfloat16():
    one, other = product(8, 8, 8, "bfloat16"), product(8, 8, 16, "bfloat16")
    parts = [part(one, other, product(8, 8, 8), backward=(one,))]
    assert kernels(parts) == 2
    few, many = (training_memory([part(*works)]).process_bytes for works in ((one,), (one, other)))
    assert many - few == KERNEL_BYTES
