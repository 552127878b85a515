import copy

import pytest
import torch
from torch import nn

from groundup.errors import CheckpointError
from groundup.optim.joint import load_state_tensors, state_tensors
from groundup.optim.optimizers import AdamW, Muon
from unit.test_optim_optimizers import Tiny, backward, trained

both = pytest.mark.parametrize("spec", [AdamW(), Muon()], ids=["AdamW", "Muon"])


def copied(tensors):
    return {name: tensor.clone() for name, tensor in tensors.items()}


@both
def test_state_is_named_after_the_parameters(spec):
    model = Tiny()
    optimizer = spec.build(model)
    assert state_tensors(optimizer) == {}
    trained(model, optimizer, 1)
    state = state_tensors(optimizer)
    assert {name.rpartition(".")[0] for name in state} == {name for name, _ in model.named_parameters()}
    assert state["embed.weight.exp_avg"].shape == (11, 8)
    assert ("up.weight.momentum_buffer" in state) == isinstance(spec, Muon)


@both
def test_three_steps_after_loading_are_bitwise_those_of_a_run_that_went_on(spec):
    model = Tiny()
    optimizer = spec.build(model)
    trained(model, optimizer, 3)
    other = copy.deepcopy(model)
    resumed = spec.build(other)
    load_state_tensors(resumed, copied(state_tensors(optimizer)))
    assert trained(model, optimizer, 3) == trained(other, resumed, 3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


@both
def test_state_goes_by_name_whatever_the_order_of_the_modules(spec):
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
    turned = nn.ModuleDict({"b": nn.Linear(4, 4), "a": nn.Linear(4, 4)})
    optimizer, other = spec.build(model), spec.build(turned)
    model["a"](model["b"](torch.ones(2, 4))).sum().backward()
    optimizer.step()
    load_state_tensors(other, copied(state_tensors(optimizer)))
    expected, found = state_tensors(optimizer), state_tensors(other)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_parameter_that_never_had_a_gradient_has_no_state():
    model = Tiny()
    model.head.weight.requires_grad_(False)
    optimizer = AdamW().build(model)
    backward(model, 1)
    optimizer.step()
    assert not [name for name in state_tensors(optimizer) if name.startswith("head")]


def state_of(spec, model):
    optimizer = spec.build(model)
    trained(model, optimizer, 1)
    return state_tensors(optimizer)


def test_the_state_of_another_kind_of_optimizer_is_refused():
    with pytest.raises(CheckpointError, match="MuonOptimizer keeps momentum_buffer; resume with the optimizer"):
        load_state_tensors(Muon().build(Tiny()), state_of(AdamW(), Tiny()))


def test_state_of_a_parameter_that_is_not_trained_is_refused_by_name():
    state = state_of(AdamW(), Tiny())
    with pytest.raises(CheckpointError, match=r"the optimizer state has norm\.bias"):
        model = Tiny()
        model.norm.bias.requires_grad_(False)
        load_state_tensors(AdamW().build(model), state)


def test_state_of_another_shape_is_refused_by_name():
    state = state_of(AdamW(), Tiny()) | {"down.weight.exp_avg": torch.zeros(8, 25)}
    with pytest.raises(CheckpointError, match=r"down.weight.exp_avg has the shape \(8, 25\), .* \(8, 24\)"):
        load_state_tensors(AdamW().build(Tiny()), state)
