"""Attention in blocks: what it sees, what it costs, what it refuses."""

from __future__ import annotations

import pytest
import torch

from groundup.context import Context
from groundup.errors import SpecError
from groundup.mixers.block_sparse import BlockSparseAttention, DrawnBlocks, FirstBlock, blocks_read

SPEC = BlockSparseAttention(heads=2, head_width=4, block=2, length=64, further=DrawnBlocks(count=1, seed=5))


def test_a_block_reads_its_neighbours_the_ends_and_a_drawn_one():
    for rows in blocks_read(SPEC, 20):
        for n, (first, before, itself, after, last, drawn) in enumerate(rows, start=1):
            assert (first, itself, last) == (0, n, 19)
            assert (before, after) == (n - 1 if n > 1 else -1, n + 1 if n < 18 else -1)
            assert drawn not in (0, n - 1, n, n + 1)


def test_other_heads_and_other_seeds_read_other_blocks_and_the_same_seed_the_same():
    one, two = blocks_read(SPEC, 20)
    assert one != two
    assert blocks_read(SPEC.replace(further=DrawnBlocks(count=1, seed=6)), 20) != (one, two)
    blocks_read.cache_clear()
    assert blocks_read(SPEC, 20) == (one, two)


def test_a_far_token_is_seen_through_the_first_block_alone():
    made = SPEC.replace(further=FirstBlock(count=1)).build(8).double()
    torch.nn.init.normal_(made.v.weight)
    torch.nn.init.normal_(made.out.weight)
    x = torch.zeros(1, 40, 8, dtype=torch.float64)
    torch.nn.init.zeros_(made.q.weight)
    torch.nn.init.zeros_(made.k.weight)

    def change(place: int) -> list[int]:
        other = x.clone()
        other[0, place] = 1.0
        apart = (made(other, Context.whole(x)) - made(x, Context.whole(x))).abs().sum(-1)[0]
        return apart.nonzero().flatten().tolist()

    assert change(0) == list(range(40))
    assert change(21) == [0, 1, *range(18, 24), 38, 39]


def test_operations_grow_with_the_length_of_the_text():
    made = SPEC.replace(length=64_000).build(8)
    assert made.mix_flops(16_000, 16_000) == pytest.approx(10 * made.mix_flops(1600, 1600), rel=0.01)


def test_a_block_that_does_not_divide_the_length_is_refused():
    with pytest.raises(SpecError, match="length=50 is not a multiple of block=4; change one of them"):
        BlockSparseAttention(heads=2, head_width=4, block=4, length=50)
