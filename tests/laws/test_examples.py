"""Nothing escapes the laws: every registered part and every preset is in an example."""

from __future__ import annotations

import pytest

from groundup.families import PRESETS
from groundup.parts.act import ACTIVATIONS
from groundup.specs import walk
from laws.examples import EXAMPLES, SHRUNK, registered_kinds, shrink


def test_every_registered_kind_is_in_an_example():
    used = {type(node).__name__ for spec in EXAMPLES.values() for _, node in walk(spec)}
    assert set(registered_kinds()) - used == set()


def test_every_activation_is_in_an_example():
    nodes = [node for spec in EXAMPLES.values() for _, node in walk(spec)]
    assert set(ACTIVATIONS) - {getattr(node, "act", None) for node in nodes} == set()


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_shrinks_to_an_example_of_its_own_kinds(name):
    full, small = PRESETS[name](), SHRUNK[name]
    assert small in EXAMPLES.values()
    assert {type(node) for _, node in walk(small)} == {type(node) for _, node in walk(full)}
    assert shrink(small) == small
    assert sum(p.numel() for p in small.build().parameters()) < 120_000
