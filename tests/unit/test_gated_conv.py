"""Gated convolutions by hand and beside PyTorch's."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from groundup.context import Context
from groundup.errors import SpecError
from groundup.mixers.gated_conv import GatedConv


@torch.no_grad()
def test_three_tokens_by_hand():
    mixer = GatedConv(taps=2).build(1)
    mixer.value.weight.copy_(torch.tensor([[10.0, 1.0]]))
    mixer.gate.weight.zero_()
    mixer.gate.bias.fill_(math.log(3.0))  # a gate of 3/4
    x = torch.tensor([[[1.0], [2.0], [4.0]]])
    assert mixer(x, Context.whole(x)).flatten().tolist() == pytest.approx([0.75, 9.0, 18.0])
    packed = Context.whole(x, segments=torch.tensor([[0, 0, 1]]))
    assert mixer(x, packed).flatten().tolist() == pytest.approx([0.75, 9.0, 3.0])


def test_values_and_gradients_are_those_of_a_convolution():
    mixer = GatedConv(taps=4).build(6).double()
    with torch.no_grad():
        for weight in mixer.parameters():
            weight.normal_(0, 0.3)
    x = torch.randn(2, 20, 6, dtype=torch.float64, requires_grad=True)

    def convolved(linear):
        kernel = linear.weight.unflatten(1, (4, 6)).transpose(1, 2)
        return F.conv1d(F.pad(x.mT, (3, 0)), kernel, linear.bias).mT

    ours, theirs = mixer(x, Context.whole(x)), convolved(mixer.value) * convolved(mixer.gate).sigmoid()
    inputs = [x, *mixer.parameters()]
    for one, two in zip(
        [ours, *torch.autograd.grad(ours.square().sum(), inputs)],
        [theirs, *torch.autograd.grad(theirs.square().sum(), inputs)],
        strict=True,
    ):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)


def test_no_taps_are_refused():
    with pytest.raises(SpecError, match="taps=0"):
        GatedConv(taps=0)
