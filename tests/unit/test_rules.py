"""Weight rules: each operation undone by its inverse, and nothing lost without a word."""

from __future__ import annotations

import pytest
import torch

from groundup.errors import WeightsError
from groundup.rules import (
    SAME,
    TRANSPOSE,
    TURNS,
    chain,
    halves,
    joined,
    named,
    read,
    rule,
    split,
    split_heads,
    split_within,
    write,
)

RULES = [
    rule("wte", "embed"),
    rule("h.{l}.qkv", "layers.{l}.q layers.{l}.k layers.{l}.v", chain(TRANSPOSE, split(3))),
    rule("h.{l}.out", "layers.{l}.out", TRANSPOSE),
]


def theirs(*, layers: int) -> dict[str, torch.Tensor]:
    made = {"wte": torch.randn(5, 2)}
    for i in range(layers):
        made |= {f"h.{i}.qkv": torch.randn(2, 6), f"h.{i}.out": torch.randn(2, 2)}
    return made


def test_theirs_become_ours():
    weights = theirs(layers=2)
    ours = read(weights, RULES, layers=2)
    assert set(ours) == {"embed", *(f"layers.{i}.{x}" for i in (0, 1) for x in ("q", "k", "v", "out"))}
    assert torch.equal(ours["layers.1.k"], weights["h.1.qkv"][:, 2:4].T)
    assert torch.equal(ours["layers.0.out"], weights["h.0.out"].T)


def test_reading_and_writing_undo_each_other_bitwise():
    weights = theirs(layers=2)
    back = write(read(weights, RULES, layers=2), RULES, layers=2)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)


OPS = [
    SAME,
    TRANSPOSE,
    chain(TURNS, TRANSPOSE),
    split(3),
    chain(TRANSPOSE, split(2)),
    split_heads(2),
    split_heads(2, queries=4),
    halves(2, 4),
    halves(1, 12),
    split_within(2, 1, 3, 2),
]


@pytest.mark.parametrize("op", OPS)
def test_every_operation_is_undone_by_its_inverse(op):
    tensor = torch.randn(12, 4)
    assert torch.equal(op.write(op.read([tensor]))[0], tensor)


def test_modules_are_named_once_for_weight_and_bias():
    weights = {"ln.weight": torch.randn(2), "ln.bias": torch.randn(2), "qk.weight": torch.randn(4, 3)}
    made = [*named({"ln": "norm"}), *joined("qk", "mixer", "qk", split(2))]
    ours = read(weights, made, layers=1)
    assert set(ours) == {"norm.weight", "norm.bias", "mixer.q.weight", "mixer.k.weight"}
    assert torch.equal(ours["mixer.k.weight"], weights["qk.weight"][2:])
    assert write(ours, made, layers=1).keys() == weights.keys()


def test_transposing_leaves_vectors_alone():
    weights = {"map.weight": torch.randn(2, 3), "map.bias": torch.randn(3)}
    ours = read(weights, named({"map": "out"}, TRANSPOSE), layers=1)
    assert torch.equal(ours["out.weight"], weights["map.weight"].T)
    assert torch.equal(ours["out.bias"], weights["map.bias"])


def test_heads_of_queries_keys_and_values_are_told_apart():
    rows = torch.tensor([0, 1, 10, 20, 2, 3, 11, 21])  # two queries, a key and a value, of two heads of keys
    q, k, v = split_heads(2, queries=2).read([rows])
    assert (q.tolist(), k.tolist(), v.tolist()) == ([0, 1, 2, 3], [10, 11], [20, 21])


def test_parts_of_every_group_are_gathered():
    rows = torch.tensor([0, 10, 11, 1, 12, 13])  # one row of one thing and two of another, twice
    one, two = split_within(2, 1, 2).read([rows])
    assert (one.tolist(), two.tolist()) == ([0, 1], [10, 11, 12, 13])


def test_neighbours_that_turn_together_become_halves():
    rows = torch.tensor([0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 18, 19])  # of two heads, the first four values turn
    assert halves(2, 4).read([rows])[0].tolist() == [0, 2, 1, 3, 8, 9, 10, 12, 11, 13, 18, 19]


def test_tensors_that_no_rule_reads_are_named():
    with pytest.raises(WeightsError, match=r"1 of 4 tensors belong to no part.*h\.0\.gate"):
        read(theirs(layers=1) | {"h.0.gate": torch.zeros(1)}, RULES, layers=1)


def test_layers_that_the_model_does_not_have_are_named():
    with pytest.raises(WeightsError, match=r"h\.1\.out, h\.1\.qkv"):
        read(theirs(layers=2), RULES, layers=1)


def test_part_of_what_a_rule_needs_is_refused():
    ours = read(theirs(layers=1), RULES, layers=1)
    del ours["layers.0.k"]
    with pytest.raises(WeightsError, match=r"hold layers\.0\.q but lack layers\.0\.k"):
        write(ours, RULES, layers=1)


def test_rules_for_parts_that_are_not_there_do_nothing():
    assert set(read({"wte": torch.zeros(1)}, RULES, layers=3)) == {"embed"}
