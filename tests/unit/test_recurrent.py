"""Recurrent networks by hand, beside PyTorch's, and over packed documents."""

from __future__ import annotations

import math

import pytest
import torch

from groundup.context import Context
from groundup.errors import SpecError
from groundup.families import PRESETS
from groundup.mixers.recurrent import GRU, LSTM, RNN, Recurrent
from groundup.model.layer import Stacked
from groundup.model.residual import Residual
from groundup.planner import books


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def of_ones(spec: Recurrent):
    """Returns a mixer one wide whose weights are all 1 and whose biases are 0."""
    mixer = spec.build(1).double()
    with torch.no_grad():
        for name, weight in mixer.named_parameters():
            weight.fill_(0.0 if name.endswith("bias") else 1.0)
    return mixer


@torch.no_grad()
def test_two_tokens_by_hand():
    x = torch.tensor([[[0.5], [-1.0]]], dtype=torch.float64)
    ctx = Context.whole(x)
    first = math.tanh(0.5)
    assert of_ones(RNN())(x, ctx)[0, :, 0].tolist() == pytest.approx([first, math.tanh(-1.0 + first)])
    cell = sigmoid(0.5) * math.tanh(0.5)
    h = sigmoid(0.5) * math.tanh(cell)
    a = -1.0 + h
    later = sigmoid(a) * math.tanh(sigmoid(a) * cell + sigmoid(a) * math.tanh(a))
    assert of_ones(LSTM())(x, ctx)[0, :, 0].tolist() == pytest.approx([h, later])
    first = (1 - sigmoid(0.5)) * math.tanh(0.5)
    z = sigmoid(-1.0 + first)
    later = (1 - z) * math.tanh(-1.0 + z * first) + z * first
    assert of_ones(GRU())(x, ctx)[0, :, 0].tolist() == pytest.approx([first, later])


@pytest.mark.parametrize(("spec", "kind"), [(RNN(), torch.nn.RNN), (GRU(), torch.nn.GRU), (LSTM(), torch.nn.LSTM)])
def test_mixer_has_the_values_and_gradients_of_torch(spec, kind):
    mixer, theirs = spec.build(8), kind(8, 8, batch_first=True)
    with torch.no_grad():
        for linear in (mixer.input, mixer.recurrent):
            linear.weight.normal_(0, 0.4)
        theirs.weight_ih_l0.copy_(mixer.input.weight)
        theirs.weight_hh_l0.copy_(mixer.recurrent.weight)
        theirs.bias_ih_l0.zero_()
        theirs.bias_hh_l0.zero_()
    x = torch.randn(2, 40, 8, requires_grad=True)
    ours, told = mixer(x, Context.whole(x)), theirs(x)[0]
    torch.testing.assert_close(ours, told, rtol=1e-5, atol=1e-5)
    weights = [x, mixer.input.weight, mixer.recurrent.weight], [x, theirs.weight_ih_l0, theirs.weight_hh_l0]
    slopes = [torch.autograd.grad(y.square().sum(), w) for y, w in zip((ours, told), weights, strict=True)]
    for one, two in zip(*slopes, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_autocast_computes_in_bfloat16_near_float32():
    mixer = LSTM().build(16)
    for linear in (mixer.input, mixer.recurrent):
        linear.weight.normal_(0, 0.25)
    x = torch.randn(2, 20, 16)
    ctx = Context.whole(x, segments=torch.tensor([[0] * 7 + [1] * 13, [0] * 20]))
    with torch.autocast("cpu", torch.bfloat16):
        narrow = mixer(x.bfloat16(), ctx)
    assert narrow.dtype == torch.bfloat16
    wide = mixer(x, ctx)
    assert (narrow.float() - wide).norm() < 0.02 * wide.norm()


@torch.no_grad()
@pytest.mark.parametrize("tokens", [1, 3])
def test_the_cell_of_a_narrow_model_is_not_rounded_between_calls(tokens):
    mixer = LSTM().build(2).bfloat16()
    for linear in (mixer.input, mixer.recurrent):
        linear.weight.zero_()
    assert mixer.input.bias is not None
    mixer.input.bias.copy_(torch.tensor([-200.0, 200.0, 0.0, 0.0]).repeat_interleave(2))  # nothing enters or is lost
    state = mixer.new_state(2, 8, dtype=torch.bfloat16)
    state.c.fill_(1000.3)
    x = torch.ones(2, tokens, 2, dtype=torch.bfloat16)
    for lengths in (None, torch.tensor([1, 0])):
        y = mixer(x, Context.after(torch.zeros(2).long(), tokens, reach=tokens, lengths=lengths), state)
        assert y.dtype == torch.bfloat16
        assert state.c.tolist() == torch.full((2, 2), 1000.3).tolist()


@pytest.mark.parametrize(("size", "millions"), [("small", 4.65), ("medium", 19.78), ("large", 66.02)])
def test_presets_have_the_published_sizes(size, millions):
    spec = PRESETS[f"lstm-zaremba-{size}"]()
    width = spec.width
    assert books.params(spec) == 2 * 10_000 * width + 10_000 + 2 * (8 * width * width + 4 * width)
    assert books.params(spec) / 1e6 == pytest.approx(millions, abs=0.01)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(SpecError, match="hidden=0"):
        LSTM(hidden=0)
    with pytest.raises(SpecError, match="choose tanh or relu"):
        RNN(act="gelu")
    with pytest.raises(SpecError, match="adds nothing"):
        Stacked(mix=Residual(LSTM(), scale=0.5))
