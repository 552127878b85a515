"""Law 6: what goes out comes in again the same: specs, configurations, weights."""

from __future__ import annotations

import json

import pytest
import torch

from groundup import rules
from groundup.families import FAMILIES, PRESETS, family_of_config
from groundup.specs import Spec
from laws.examples import EXAMPLES, SHRUNK, lively, read

pytestmark = pytest.mark.usefixtures("unchecked_signatures")

every_example = pytest.mark.parametrize("name", EXAMPLES)
FAMILY_OF = {name: family for family in FAMILIES if family.model_types for name in family.presets}
every_preset = pytest.mark.parametrize("name", FAMILY_OF)


@pytest.mark.parametrize("name", [*EXAMPLES, *(f"{name}, full" for name in PRESETS)])
def test_spec_to_json_and_back(name):
    spec = EXAMPLES[name] if name in EXAMPLES else PRESETS[name.removesuffix(", full")]()
    text = json.dumps(spec.to_dict())
    assert Spec.from_dict(json.loads(text)) == spec
    assert type(spec).from_dict(json.loads(text)) == spec


@every_example
def test_spec_is_what_its_repr_makes(name):
    made = eval(repr(EXAMPLES[name]), dict(Spec.kinds))
    assert made == EXAMPLES[name]
    assert hash(made) == hash(EXAMPLES[name])


@every_preset
@pytest.mark.parametrize("size", ["full", "shrunk"])
def test_spec_to_configuration_and_back(name, size):
    spec = PRESETS[name]() if size == "full" else SHRUNK[name]
    family = FAMILY_OF[name]
    config = json.loads(json.dumps(family.config(spec)))
    assert family_of_config(config) is family
    assert family.spec(config) == spec
    assert family.config(family.spec(config)) == config


@every_preset
def test_a_family_describes_its_presets(name):
    assert FAMILY_OF[name].describes(PRESETS[name]())


@every_preset
def test_weights_out_and_in_are_bitwise_the_same(name):
    spec = SHRUNK[name]
    family, count, ours = FAMILY_OF[name], spec.depth, lively(spec, torch.float32).state_dict()
    theirs = rules.write(ours, family.rules(spec), layers=count)
    back = rules.read(theirs, family.rules(spec), layers=count)
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[key], ours[key]) for key in ours)
    again = rules.write(back, family.rules(spec), layers=count)
    assert again.keys() == theirs.keys()
    assert all(torch.equal(again[key], theirs[key]) for key in theirs)


@every_example
def test_state_dict_makes_the_same_model(name):
    model, other = lively(EXAMPLES[name]), EXAMPLES[name].build(seed=5).double().eval()
    other.load_state_dict(model.state_dict())
    ids = torch.arange(6)[None]
    assert torch.equal(read(model, ids), read(other, ids))
