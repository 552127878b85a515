from __future__ import annotations

import itertools
import platform
import random
import subprocess
import sys

import pytest
import torch

from groundup.objectives.objective import Shape
from groundup.optim.optimizers import AdamW
from groundup.planner import replay
from groundup.planner.heap import ALIGNED, GRAIN, PAGE, TOP_PAD, Heap
from groundup.planner.memory import training_memory
from groundup.planner.rehearsal import rehearse
from unit.planner_stand_in import GPT2, LLAMA

MIB = 2**20


def test_blocks_never_overlap_and_are_aligned():
    draw, heap, live = random.Random(0), Heap(), {}
    for _ in range(3000):
        if live and draw.random() < 0.5:
            heap.free(live.pop(draw.choice(list(live)))[0])
            continue
        size = draw.choice((draw.randint(1, 200), draw.randint(1, 5000), draw.randint(1, 300_000)))
        if draw.random() < 0.5:
            at = heap.allocate_aligned(size)
            assert (at + GRAIN) % ALIGNED == 0
        else:
            at = heap.allocate(size)
            assert at % GRAIN == 0
        live[len(live), at] = (at, size)
    spans = sorted((at, at + size + 8) for at, size in live.values())
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    assert spans[-1][1] <= heap.grown_bytes


def test_heap_grows_by_pages_and_a_pad_and_what_is_freed_is_used_again():
    heap = Heap()
    first = heap.allocate(MIB)
    grown = heap.grown_bytes
    assert MIB + TOP_PAD <= grown <= MIB + TOP_PAD + 2 * PAGE
    heap.free(first)
    assert heap.allocate(MIB) == first
    assert heap.grown_bytes == grown


def test_neighbours_that_are_freed_are_joined():
    heap = Heap()
    blocks = [heap.allocate(MIB) for _ in range(4)]
    heap.allocate(16)  # so that the last is not the heap's end
    grown = heap.grown_bytes
    for block in (blocks[0], blocks[2], blocks[1]):
        heap.free(block)
    assert heap.allocate(3 * MIB) == blocks[0]
    assert heap.grown_bytes == grown


def test_the_smallest_free_chunk_that_fits_is_taken():
    heap = Heap()
    sizes = (3 * MIB, MIB, 2 * MIB)
    blocks = []
    for size in sizes:
        blocks.append(heap.allocate(size))
        heap.allocate(2000)
    for block in blocks:
        heap.free(block)
    assert heap.allocate(MIB + 5000) == blocks[2]


def test_an_aligned_block_does_not_fit_where_an_equal_one_lay_between_others():
    heap = Heap()
    blocks = []
    for _ in range(9):
        blocks.append(heap.allocate_aligned(MIB))
        heap.allocate(2000)
    for block in blocks[::2]:
        heap.free(block)
    taken = {heap.allocate_aligned(MIB) for _ in range(5)}
    assert taken != set(blocks[::2])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's heap")
def test_it_grows_as_glibcs_own_heap_does():
    """In the mean of several sequences: each is off by up to 5%, as no process begins with an empty heap."""
    drawn = range(8)
    told = [subprocess.check_output([sys.executable, "-c", SEQUENCE, str(seed)], text=True) for seed in drawn]
    assert sum(map(grown_bytes, drawn)) == pytest.approx(sum(map(int, told)), rel=0.02)


def grown_bytes(seed: int) -> int:
    heap, live = Heap(), {}
    for number, size in events(seed):
        if size:
            live[number] = heap.allocate_aligned(size)
        else:
            heap.free(live.pop(number))
    return heap.grown_bytes


def events(seed: int):
    """Blocks of a few sizes that come and go: (number, bytes), or 0 bytes where one is freed."""
    draw, live, sizes = random.Random(seed), [], [draw_size << 10 for draw_size in (40, 100, 256, 700, 1536)]
    for number in range(4000):
        if live and (len(live) > 120 or draw.random() < 0.45):
            yield live.pop(draw.randrange(len(live))), 0
        else:
            live.append(number)
            yield number, draw.choice(sizes)


# The events in a fresh process, whose heap is then asked how far it grew; all that Python makes is made before.
SEQUENCE = """
import ctypes, gc, random, sys
libc = ctypes.CDLL(None)
libc.sbrk.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.mallopt(-4, 0), libc.mallopt(-1, -1)
draw, live, sizes = random.Random(int(sys.argv[1])), [], [size << 10 for size in (40, 100, 256, 700, 1536)]
blocks, alignment, calls = (ctypes.c_void_p * 4000)(), ctypes.c_size_t(64), []
for number in range(4000):
    if live and (len(live) > 120 or draw.random() < 0.45):
        calls.append((live.pop(draw.randrange(len(live))), None))
    else:
        live.append(number)
        calls.append((number, (ctypes.byref(blocks, 8 * number), alignment, ctypes.c_size_t(draw.choice(sizes)))))
gc.disable()
start = libc.sbrk(0)
for number, asked in calls:
    libc.posix_memalign(*asked) if asked else libc.free(blocks[number])
print(libc.sbrk(0) - start)
"""


@pytest.mark.parametrize("spec", [LLAMA, GPT2])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_replayed_step_holds_at_least_what_is_alive(spec, accumulate):
    parts = rehearse(spec, rows=4, shape=Shape.even(32), dtype=torch.bfloat16, optimizer=AdamW())
    memory = training_memory(parts, accumulate=accumulate, replaying=False)
    alive = memory.weights_bytes + memory.optimizer_bytes + memory.step_bytes
    grown = replay.grown_bytes(parts, accumulate=accumulate)
    assert grown is not None
    assert alive <= grown <= 2 * alive + 2 * TOP_PAD


def test_steps_after_the_first_few_add_nothing(monkeypatch):
    parts = rehearse(LLAMA, rows=4, shape=Shape.even(32), dtype=torch.float32, optimizer=AdamW())
    after: dict[int, int | None] = {}
    for count in (3, 12):
        monkeypatch.setattr(replay, "STEPS", count)
        after[count] = replay.grown_bytes(parts)
    assert after[3] is not None and after[12] is not None
    assert after[12] <= 1.1 * after[3]


def test_what_is_too_long_to_replay_is_told_by_a_share(monkeypatch):
    parts = rehearse(LLAMA, rows=4, shape=Shape.even(32), dtype=torch.float32, optimizer=AdamW())
    monkeypatch.setattr(replay, "MOST_EVENTS", 10)
    assert replay.grown_bytes(parts) is None
    assert training_memory(parts).slack_bytes == training_memory(parts, replaying=False).slack_bytes > 0
