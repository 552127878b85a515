"""Mamba-2 by hand: two tokens of one head, chunks, the norm after the gate, and what it costs."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from groundup.context import Context
from groundup.errors import SpecError
from groundup.families import family_of_config
from groundup.mixers.mamba2 import GatedNorm, Mamba2
from groundup.model.decoder import Decoder
from groundup.model.layer import Layer
from groundup.model.residual import Residual
from groundup.ops import ssd
from groundup.optim.groups import group
from groundup.parts.rates import DrawnRates


def test_two_tokens_of_one_head_by_hand():
    x, step, a = torch.tensor([[[[2.0]], [[3.0]]]]), torch.tensor([[[0.5], [0.25]]]), torch.tensor([-2.0])
    b, c = torch.tensor([[[[1.0, 2.0]], [[4.0, 1.0]]]]), torch.ones(1, 2, 1, 2)
    first = [0.5 * 2 * 1, 0.5 * 2 * 2]
    second = [math.exp(-0.5) * h + 0.25 * 3 * b for h, b in zip(first, (4, 1), strict=True)]
    for op in (ssd.reference, ssd.chunked):
        y, after = op(x, step, a, b, c)
        assert y.flatten().tolist() == pytest.approx([sum(first), sum(second)])
        assert after.flatten().tolist() == pytest.approx(second)


def test_decays_of_long_chunks_keep_their_digits():
    """The steps sum to thousands, the decay of the last token is that of one step."""
    step, a = torch.full((1, ssd.CHUNK, 1), 20.0), torch.tensor([-1.0])
    step[:, -1] = 0.1
    x, b = torch.ones(1, ssd.CHUNK, 1, 1), torch.ones(1, ssd.CHUNK, 1, 1)
    y, _ = ssd.chunked(x, step, a, b, b)
    assert y[0, -1].item() == pytest.approx(0.1 + math.exp(-0.1) * (20 + 20 * math.exp(-20)), rel=1e-6)


def test_groups_are_normed_apart_after_the_gate():
    norm = GatedNorm(4, groups=2, eps=0.0)
    x, gate = torch.tensor([[[3.0, 4.0, 30.0, 40.0]]]), torch.full((1, 1, 4), 2.0)
    size = math.sqrt(12.5)
    torch.testing.assert_close(norm(x, gate), torch.tensor([[[3.0, 4.0, 3.0, 4.0]]]) / size)
    whole, gated = GatedNorm(4, groups=1, eps=0.0), x * F.silu(gate)
    torch.testing.assert_close(whole(x, gate), gated / gated.square().mean().sqrt())


def test_mixer_is_what_its_equation_says():
    made = Mamba2(heads=2, head_width=3, states=4, conv=1, conv_bias=False, eps=0.0).build(5).double()
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(torch.randn(weight.shape, dtype=torch.float64))
    u, w = torch.randn(1, 1, 5, dtype=torch.float64), made.state_dict()
    x, b, c = F.silu(w["mix.weight"] @ u[0, 0] * w["conv.weight"][:, 0]).split([6, 4, 4])
    step = F.softplus(w["step.weight"] @ u[0, 0] + w["steps.bias"]).repeat_interleave(3)
    y = (step * x * (b @ c) + w["skip"].repeat_interleave(3) * x) * F.silu(w["gate.weight"] @ u[0, 0])
    told = w["out.weight"] @ (w["norm.weight"] * y / y.square().mean().sqrt())
    torch.testing.assert_close(made(u, Context.whole(u))[0, 0], told)


def test_operations_are_those_of_filled_chunks():
    made = Mamba2(heads=2, head_width=3, states=4).build(3)
    one = ssd.flops(1, heads=2, head_width=3, groups=1, states=4)
    assert one == 2 * (4 + 6 + 2 * 6 * 4)  # c b, its product with x, into the states and out of them
    assert made.mix_flops(65, 65) == made.mix_flops(128, 128)


def test_state_has_one_size_for_any_length():
    state = Mamba2(heads=2, head_width=3, states=4).build(3).new_state(5, 99, dtype=torch.bfloat16)
    assert (state.h.shape, state.h.dtype, state.conv.tail.dtype) == ((5, 2, 3, 4), torch.float32, torch.bfloat16)
    assert not state.rewinds


def test_first_rates_are_drawn_evenly_from_1_to_16():
    made = DrawnRates(1000)
    made.draw(torch.Generator().manual_seed(0))
    rates = -made().detach()
    assert rates.min() >= 0.999 and rates.max() <= 16.001
    for share in (0.25, 0.5, 0.75):
        assert rates.quantile(share).item() == pytest.approx(1 + 15 * share, abs=0.7)
    layers = (Layer(mix=Residual(Mamba2(heads=64, head_width=1, states=2))),)
    first, second = (
        Decoder(width=4, vocab=9, context=8, layers=layers).build(seed=seed).state_dict() for seed in (0, 1)
    )
    name = "layers.0.mix.mixer.rates.log"
    assert not torch.equal(first[name], second[name])
    assert first[name].min() >= 0 and first[name].max() <= math.log(16)


def test_rates_are_not_decayed():
    named = group(Mamba2(heads=2, head_width=3, states=4).build(3))
    assert {name for name, _ in named.vectors} == {"conv.bias", "norm.weight", "rates.log", "skip", "steps.bias"}


@pytest.mark.parametrize(
    "change", [{"states": 0}, {"groups": 3}, {"groups": 0}, {"eps": -1.0}, {"steps": (0.0, 0.1)}, {"heads": 0}]
)
def test_sizes_that_do_not_fit_are_refused(change):
    with pytest.raises(SpecError):
        Mamba2(**({"heads": 4, "head_width": 2, "states": 2} | change)).build(4)


@pytest.mark.parametrize("change", [{"time_step_limit": [0.0, 0.1]}, {"head_dim": 32}, {"expand": 3}], ids=str)
def test_configuration_that_says_something_else_is_refused(change):
    config = {
        "model_type": "mamba2",
        "hidden_size": 32,
        "num_heads": 4,
        "head_dim": 16,
        "n_groups": 1,
        "num_hidden_layers": 1,
    }
    assert family_of_config(config).spec(config)
    with pytest.raises(SpecError, match=next(iter(change))):
        family_of_config(config).spec(config | change)
