"""Mamba by hand: two tokens of one channel, what steps do, what is remembered, and how it starts."""

from __future__ import annotations

import math

import pytest
import torch

from groundup.context import Context
from groundup.errors import SpecError
from groundup.families import family_of_config
from groundup.mixers.mamba import Mamba
from groundup.ops import selective_scan
from groundup.optim.groups import group
from groundup.parts.rates import Rates, Steps


def test_two_tokens_of_one_channel_by_hand():
    x, step = torch.tensor([[[2.0], [3.0]]]), torch.tensor([[[0.5], [0.25]]])
    a, b, c = torch.tensor([[-1.0], [-2.0]]), torch.tensor([[[1.0, 2.0], [4.0, 1.0]]]), torch.tensor([[[1.0, 1.0]] * 2])
    first = [0.5 * 2 * 1, 0.5 * 2 * 2]
    second = [math.exp(-0.25) * first[0] + 0.25 * 3 * 4, math.exp(-0.5) * first[1] + 0.25 * 3 * 1]
    for op in (selective_scan.reference, selective_scan.scan):
        y, after = op(x, step, a, b, c)
        assert y.flatten().tolist() == pytest.approx([sum(first), sum(second)])
        assert after.flatten().tolist() == pytest.approx(second)


def test_step_of_zero_changes_nothing():
    x, b = torch.randn(1, 3, 2), torch.randn(1, 3, 4)
    before = torch.randn(1, 4, 2)
    _, after = selective_scan.scan(x, torch.zeros(1, 3, 2), -torch.ones(4, 2), b, b, before=before)
    assert torch.equal(after, before)


def test_memory_does_not_hold_the_states_of_every_token():
    x, b = torch.randn(1, 256, 8, requires_grad=True), torch.randn(1, 256, 16)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        selective_scan.scan(x, x.exp(), -torch.ones(16, 8), b, b)
    assert max(kept) <= 256 * 16 < 256 * 16 * 8


def test_mixer_is_what_its_equation_says():
    made = Mamba(states=3, rank=2, expand=1, conv=1, conv_bias=False).build(4).double()
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(torch.randn(weight.shape, dtype=torch.float64))
    u = torch.randn(1, 1, 4, dtype=torch.float64)
    w = made.state_dict()
    silu = torch.nn.functional.silu
    x = silu(w["x.weight"] @ u[0, 0] * w["conv.weight"][:, 0])
    low, b, c = (w["select.weight"] @ x).split([2, 3, 3])
    step = torch.nn.functional.softplus(w["step.weight"] @ low + w["steps.bias"])
    y = (step * x)[:, None] * b @ c + w["skip"] * x
    told = w["out.weight"] @ (y * silu(w["gate.weight"] @ u[0, 0]))
    torch.testing.assert_close(made(u, Context.whole(u))[0, 0], told)


def test_first_rates_and_steps_are_the_papers():
    rates, steps = Rates(2, 3), Steps(1000, between=(1e-3, 1e-1))
    torch.testing.assert_close(rates(), torch.tensor([[-1.0, -2.0, -3.0]] * 2))
    steps.draw(torch.Generator().manual_seed(0))
    first = steps(torch.zeros(1, 1, 1000), None)
    assert first.min() >= 0.999e-3 and first.max() <= 1.001e-1
    assert first.log().mean().item() == pytest.approx(math.log(1e-2), abs=0.1)
    assert steps(torch.zeros(1, 1, 1000), torch.tensor([[False]])).eq(0).all()


def test_sums_stay_in_float32_where_the_rest_is_rounded():
    state = Mamba(states=3, rank=2).build(4).new_state(2, 99, dtype=torch.bfloat16)
    assert (state.h.dtype, state.conv.tail.dtype) == (torch.float32, torch.bfloat16)
    assert state.nbytes == 2 * (3 * 8 * 4 + 3 * 8 * 2)
    assert not state.rewinds


def test_rates_are_not_decayed():
    named = group(Mamba(states=3, rank=2).build(4))
    assert {name for name, _ in named.vectors} == {"conv.bias", "steps.bias", "rates.log", "skip"}
    assert {name for name, _ in named.tables} == {"conv.weight"}
    assert len(named.hidden) == 5


@pytest.mark.parametrize("change", [{"states": 0}, {"rank": 0}, {"expand": 0}, {"steps": (0.1, 0.01)}, {"conv": 0}])
def test_sizes_that_do_not_fit_are_refused(change):
    with pytest.raises(SpecError):
        Mamba(**({"states": 2, "rank": 2} | change)).build(4)


def test_published_keys_that_disagree_are_refused():
    config = {"model_type": "mamba", "hidden_size": 32, "num_hidden_layers": 1, "vocab_size": 9}
    assert family_of_config(config).spec(config)
    for change in ({"d_inner": 32}, {"rms_norm": False}, {"ssm_cfg": {"d_state": 4}}, {"d_model": 16}):
        with pytest.raises(SpecError, match=next(iter(change))):
            family_of_config(config).spec(config | change)
