from __future__ import annotations

import subprocess
import sys
from mmap import mmap
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from groundup.planner import measure


def test_products_cost_two_operations_for_each_pair():
    a, b = torch.zeros(3, 5), torch.zeros(5, 7)
    assert measure.count_flops(lambda: a @ b) == 2 * 3 * 5 * 7


def test_fused_attention_is_counted_as_its_products():
    q = torch.zeros(2, 4, 16, 8, requires_grad=True)
    products = 2 * 2 * 2 * 4 * 16 * 16 * 8
    attend = lambda: F.scaled_dot_product_attention(q, q, q, is_causal=True)  # noqa: E731
    assert measure.count_flops(attend) == products
    assert measure.count_flops(lambda: attend().sum().backward()) == 3 * products


HOLDING = """
import torch
from groundup.planner import measure
before = measure.peak_rss_bytes()
held = torch.ones(2**26)
rise = measure.peak_rss_bytes() - before
assert 0.9 * held.nbytes < rise < 1.3 * held.nbytes, (rise, held.nbytes)
assert measure.peak_bytes("cpu") >= measure.process_bytes() > held.nbytes
"""


def test_peak_follows_what_is_held():
    """In a process of its own: in this one, freed memory may be used again, which raises no peak."""
    done = subprocess.run([sys.executable, "-c", HOLDING], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_peak_can_be_forgotten_where_the_system_allows():
    with mmap(-1, 2**28) as big:  # which goes back to the system at once, where malloc may keep it
        big.write(b"1" * 2**28)
        peak = measure.peak_rss_bytes()
    if measure.reset_peak():
        assert measure.peak_rss_bytes() < peak
    else:
        assert measure.peak_rss_bytes() >= peak


PEAKS = """
from mmap import mmap
from groundup.planner import measure

def hold(size):
    with mmap(-1, size) as held:  # which goes back to the system at once, where malloc may keep it
        held.write(b"1" * size)

hold(2**28)
forgets, before = measure.reset_peak(), measure.peak_rss_bytes()
if not forgets:
    peak = measure.peak_from_here()
    hold(2**20)
    assert peak() is None
peak, held = measure.peak_from_here(), measure.held_bytes()
hold(2**29)
rise = peak() - held
assert 2**29 <= rise < 2.2 * 2**29, rise
"""


def test_a_peak_is_told_where_it_is_known_to_be_of_what_followed():
    done = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("field", "counts"), [(0, True), (1, True), (2, True), (3, False), (4, False), (7, True)])
def test_what_others_take_is_all_that_the_processors_did_but_for_idling(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, field: int, counts: bool
):
    """Fields of proc(5): user, nice, system, idle, iowait, irq, softirq, steal."""
    ticks, told = [1000, 20, 300, 4000, 5, 0, 6, 7, 0, 0], tmp_path / "stat"
    told.write_text(f"cpu  {' '.join(map(str, ticks))}\ncpu0 1 2 3\n")
    monkeypatch.setattr(measure, "_STAT", told)
    others = measure.others_from_here()
    assert others() == 0
    ticks[field] += 10**9
    told.write_text(f"cpu  {' '.join(map(str, ticks))}\ncpu0 1 2 3\n")
    assert ((others() or 0) > 1) == counts


@pytest.mark.parametrize("content", ["", "cpu\n", "cpu a b c d e f g h\n", None])
def test_nobody_knows_what_others_take_where_the_system_does_not_tell(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
):
    if content is not None:
        (tmp_path / "stat").write_text(content)
    monkeypatch.setattr(measure, "_STAT", tmp_path / "stat")
    assert measure.others_from_here()() is None
