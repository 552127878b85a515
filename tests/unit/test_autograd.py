"""Backwards that are written by hand give right second derivatives, or say that they have none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from groundup.ops import causal_conv, cross_entropy, rms_norm, slices, token_shift, wkv
from groundup.parts.act import activation

WIDTH = 4


def _wkv(x: Tensor) -> Tensor:
    rows, ones = x.new_zeros(2, WIDTH), x.new_ones(WIDTH)
    return wkv.scanned(x, x, ones, ones, wkv.Sums(rows, rows, rows + wkv.NOTHING))[0]


ONCE: dict[str, Callable[[Tensor], Tensor]] = {
    "RMSNorm": lambda x: rms_norm.rms_norm(x, torch.ones(WIDTH), eps=1e-6),
    "convolution": lambda x: causal_conv.causal_conv(x, x.new_ones(WIDTH, 2), None),
    "cross-entropy": lambda x: cross_entropy.chunked(x[0], x.new_ones(7, WIDTH), torch.ones(3, dtype=torch.long)),
    "RWKV-4": _wkv,
}
TWICE: dict[str, Callable[[Tensor], Tensor]] = {
    "squared relu": activation("relu2"),
    "token shift": lambda x: torch.cat(token_shift.mixed(x, x[:, :1] ** 2, x[0, :2].sigmoid()), -1),
    "slices": lambda x: torch.cat([t**2 for t in slices.slices(x, [slice(0, 2), slice(1, 3)])], 1),
}


def text(dtype: torch.dtype) -> Tensor:
    return torch.randn(2, 3, WIDTH, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("name", ONCE)
def test_what_has_no_second_derivative_says_so(name: str):
    x = text(torch.float32)
    assert torch.autograd.grad(ONCE[name](x).sum(), x)[0].isfinite().all()
    with pytest.raises(RuntimeError, match="has no second derivative; leave create_graph out"):
        torch.autograd.grad(ONCE[name](x).sum(), x, create_graph=True)


@pytest.mark.parametrize("name", TWICE)
def test_second_derivatives_are_those_of_small_steps(name: str):
    assert torch.autograd.gradgradcheck(TWICE[name], (text(torch.float64),))
