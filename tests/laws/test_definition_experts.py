"""Law 4 for the products of experts: they equal their definition, values and gradients, whoever has no rows."""

from __future__ import annotations

import pytest
import torch

from groundup.ops import experts
from laws.test_definition import TOLERANCE, assert_equal, noise, precisions, values_and_gradients

ENDS = {"one": [1.0], "shared": [0.3, 0.3, 0.9, 1.0], "first": [1.0, 1.0, 1.0], "last": [0.0, 0.0, 1.0]}


def ends_of(rows: int, ends: str) -> torch.Tensor:
    return torch.tensor([round(rows * share) for share in ENDS[ends]], dtype=torch.int32)


@precisions
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("rows", [1, 63, 100])
def test_products_of_experts_equal_their_definition(rows, ends, dtype):
    inputs = noise(rows, 6, seed=0, dtype=dtype), noise(len(ENDS[ends]), 5, 6, seed=1, dtype=dtype)
    where = ends_of(rows, ends)
    fast, slow = (values_and_gradients(op, inputs, where) for op in (experts.grouped, experts.reference))
    assert_equal(fast, slow, tolerance=TOLERANCE[dtype])


@pytest.mark.parametrize("width", [6, 16])  # the wider is taken by PyTorch's own kernel
@pytest.mark.parametrize("ends", ENDS)
def test_products_of_experts_in_bfloat16_are_as_near_as_rounding_is(ends, width):
    sizes = (100, width), (len(ENDS[ends]), 2 * width, width)
    inputs = [noise(*size, seed=seed).detach().to(torch.bfloat16).requires_grad_() for seed, size in enumerate(sizes)]
    wide = [t.detach().float().requires_grad_() for t in inputs]
    fast = values_and_gradients(experts.grouped, inputs, ends_of(100, ends))
    for one, two in zip(fast, values_and_gradients(experts.reference, wide, ends_of(100, ends)), strict=True):
        assert one.dtype == torch.bfloat16
        assert (one.float() - two).norm() <= 0.005 * two.norm()


def test_products_of_experts_follow_autocast():
    x, weight = noise(20, 8, seed=0, dtype=torch.float32), noise(3, 16, 8, seed=1, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = experts.grouped(x, weight, ends_of(20, "last"))
    assert made.dtype == torch.bfloat16
    assert all(grad.dtype == torch.float32 for grad in torch.autograd.grad(made.float().sum(), [x, weight]))
