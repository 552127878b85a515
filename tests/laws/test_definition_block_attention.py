"""Law 4 for attention in blocks: what reads lists of blocks equals the one full matrix."""

from __future__ import annotations

import pytest
import torch

from groundup.ops import block_attention
from laws.test_definition import TOLERANCE, assert_equal, noise, precisions, values_and_gradients


def drawn_plan(heads: int, blocks: int) -> torch.Tensor:
    """Three blocks of each list at random, one of them twice and some that are none."""
    return torch.randint(-1, blocks + 1, (heads, blocks, 3), generator=torch.Generator().manual_seed(blocks))


@precisions
@pytest.mark.parametrize("shared", [0, 2])
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize(("blocks", "size"), [(1, 1), (1, 5), (2, 3), (7, 9), (25, 4)])
def test_attention_in_blocks_equals_its_definition(blocks, size, heads, shared, dtype):
    tokens = blocks * size
    q = noise(2, 3, tokens, 6, seed=0, dtype=dtype)
    k, v = (noise(2, 3, tokens + shared, width, seed=width, dtype=dtype) for width in (6, 5))
    for plan in (block_attention.window(blocks, before=1, after=1, device=q.device), drawn_plan(heads, blocks)):
        place = block_attention.places(plan, size=size, keys=tokens).unflatten(1, (blocks, 1))  # (heads, N, 1, J C)
        query = torch.arange(tokens).view(blocks, size, 1)
        beside = ((place >= 0) & ((query - place) % 3 != 1)).expand(plan.shape[0], blocks, size, -1)
        allowed = torch.cat([beside, torch.ones(*beside.shape[:3], shared, dtype=torch.bool)], -1)[None]
        if not allowed.any(-1).all():
            continue  # the definition is of queries that see something
        settings = {"plan": plan, "allowed": allowed, "scale": 0.4}
        fast, slow = (
            values_and_gradients(op, (q, k, v), **settings)
            for op in (block_attention.attend, block_attention.reference)
        )
        assert_equal(fast, slow, tolerance=TOLERANCE[dtype])


def test_a_key_that_is_listed_twice_counts_twice():
    q, k = torch.zeros(1, 1, 2, 1), torch.zeros(1, 1, 2, 1)
    v = torch.tensor([3.0, 0.0]).view(1, 1, 2, 1)
    plan = torch.tensor([[[0, 0, 1], [1, 1, 0]]])
    for op in (block_attention.attend, block_attention.reference):
        y = op(q, k, v, plan=plan, allowed=torch.ones(1, 1, 2, 1, 3, dtype=torch.bool), scale=1.0)
        torch.testing.assert_close(y.flatten(), torch.tensor([2.0, 1.0]))
