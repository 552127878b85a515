"""The short convolution by hand: what a token reads, what is remembered, what documents hide."""

from __future__ import annotations

import pytest
import torch

from groundup.context import Context
from groundup.errors import SpecError
from groundup.parts.conv import ShortConv

X = torch.tensor([[[1.0], [2.0], [3.0], [4.0]]])


def conv(*, taps=(100.0, 10.0, 1.0), bias=None):
    made = ShortConv(1, len(taps), bias=bias is not None)
    with torch.no_grad():
        made.weight.copy_(torch.tensor([taps]))
        if made.bias is not None and bias is not None:
            made.bias.fill_(bias)
    return made


def test_last_tap_is_the_tokens_own():
    assert conv()(X, Context.whole(X)).flatten().tolist() == [1, 12, 123, 234]
    assert conv(bias=0.5)(X, Context.whole(X)).flatten().tolist() == [1.5, 12.5, 123.5, 234.5]


def test_documents_do_not_read_each_other():
    ctx = Context.whole(X, segments=torch.tensor([[0, 0, 1, 1]]))
    assert conv()(X, ctx).flatten().tolist() == [1, 12, 3, 34]


def test_state_remembers_the_last_real_tokens_of_each_row():
    made, x = conv(), X.expand(3, -1, -1)
    state = made.new_state(3)
    seen, lengths = torch.zeros(3, dtype=torch.int64), torch.tensor([4, 1, 0])
    made(x, Context.after(seen, 4, reach=4, lengths=lengths), state)
    assert state.tail.flatten(1).tolist() == [[3, 4], [0, 1], [0, 0]]
    y = made(x[:, :1], Context.after(lengths, 1, reach=5), state)
    assert y.flatten().tolist() == [341, 11, 1]
    assert not state.rewinds


def test_gradient_of_a_convolution_is_that_of_pytorchs():
    made, x = ShortConv(3, 4, bias=True).double(), torch.randn(2, 9, 3, dtype=torch.float64, requires_grad=True)
    made.draw(torch.Generator().manual_seed(0))
    told = torch.conv1d(x.mT, made.weight[:, None].double(), made.bias, padding=3, groups=3)[:, :, :9].mT
    y, weights = made(x, Context.whole(x)), [x, *made.parameters()]
    torch.testing.assert_close(y, told)
    for one, two in zip(
        torch.autograd.grad(y.square().sum(), weights), torch.autograd.grad(told.square().sum(), weights), strict=True
    ):
        torch.testing.assert_close(one, two)


def test_first_weights_depend_on_the_generator_alone():
    made = [ShortConv(4, 4, bias=True) for _ in range(2)]
    for one in made:
        one.draw(torch.Generator().manual_seed(3))
    assert torch.equal(made[0].weight, made[1].weight)
    assert 0.3 < made[0].weight.abs().max() <= 0.5


def test_no_taps_are_refused():
    with pytest.raises(SpecError, match="conv=0 must be at least 1"):
        ShortConv(4, 0, bias=False)
