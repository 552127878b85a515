"""Law 4 for what is read token by token: fast operations equal their definitions, with states and documents."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from groundup.ops import causal_conv
from laws.test_definition import TOLERANCE, assert_equal, noise, precisions, values_and_gradients

every_length = pytest.mark.parametrize("tokens", [1, 2, 63, 100])
documents = pytest.mark.parametrize("packed", [False, True])


def starts(rows: int, tokens: int) -> Tensor:
    """Returns beginnings of documents, different in every row, some next to each other."""
    return torch.rand(rows, tokens, generator=torch.Generator().manual_seed(7)) < 0.15


@precisions
@every_length
@documents
@pytest.mark.parametrize("taps", [1, 2, 4])
@pytest.mark.parametrize("past", [False, True])
def test_causal_conv_equals_its_definition(tokens, packed, taps, past, dtype):
    x, weight, bias = (noise(*size, seed=i, dtype=dtype) for i, size in enumerate([(2, tokens, 5), (5, taps), (5,)]))
    before = noise(2, taps - 1, 5, seed=4, dtype=dtype) if past and taps > 1 else None
    begin = starts(2, tokens) if packed else None
    for given in (bias, None):
        fast, slow = (
            values_and_gradients(op, (x, weight, given), before=before, starts=begin)
            for op in (causal_conv.causal_conv, causal_conv.reference)
        )
        assert_equal(fast, slow, tolerance=TOLERANCE[dtype])
