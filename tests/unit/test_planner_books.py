from __future__ import annotations

import pytest
import torch

from groundup.families import PRESETS
from groundup.mixers.attention import Attention
from groundup.parts.mask import Window
from groundup.planner import books
from groundup.planner.measure import count_flops
from groundup.planner.table import tree_lines
from groundup.specs import override
from unit.planner_stand_in import GPT2, LLAMA

FAR = LLAMA.layers[0]
NEAR = override(FAR, "mix.mixer.mask", Window(4))
HYBRID = LLAMA.replace(layers=(FAR, NEAR, NEAR))


@pytest.mark.parametrize("spec", [LLAMA, GPT2, HYBRID])
def test_parameters_by_part_are_those_of_the_built_model(spec):
    model = spec.build()
    parts = books.params_by_part(spec)
    assert books.params(spec) == sum(parts.values()) == sum(p.numel() for p in model.parameters())
    assert parts["layers.ffn"] == sum(p.numel() for n, p in model.named_parameters() if ".ffn." in n)
    assert parts["embed"] == spec.vocab * spec.width


def test_published_counts_are_met():
    assert books.params(PRESETS["gpt2"]()) == 124_439_808
    assert books.embedding_params(PRESETS["gpt2"]()) == 38_597_376 + 786_432
    assert books.params(PRESETS["llama-3.1-405b"]()) == 405_853_388_800
    assert books.embedding_params(PRESETS["llama-3-8b"]()) == 525_336_576  # the head, of the same size, is none


def test_equal_layers_are_built_once():
    plan = books.blueprint(PRESETS["llama-3.1-405b"]())
    assert plan.counts == {"layers.0": 126}
    assert len(plan.model.layers) == 1
    assert all(p.is_meta for p in plan.model.parameters())


@pytest.mark.parametrize("spec", [LLAMA, GPT2, HYBRID])
def test_operations_of_forward_and_backward_are_those_that_pytorch_counts(spec):
    model = spec.build()
    ids = torch.randint(0, spec.vocab, (2, 24))
    tokens = ids.numel()
    assert books.forward_flops_per_token(spec, context=24) * tokens == count_flops(lambda: model(ids))
    trained = count_flops(lambda: model(ids).sum().backward())
    assert books.train_flops_per_token(spec, context=24) * tokens == trained


def test_attention_costs_more_in_longer_rows():
    short, long = (books.forward_flops_per_token(LLAMA, context=n) for n in (16, 32))
    attention = LLAMA.layers[0].parts["mix"].mixer
    assert isinstance(attention, Attention)
    assert long - short == 3 * 4 * attention.heads * attention.head_width * 16


@pytest.mark.parametrize("spec", [LLAMA, HYBRID])
def test_state_bytes_are_those_of_the_built_state(spec):
    state = spec.build().new_state(3, 20, dtype=torch.bfloat16)
    assert books.state_bytes(spec, rows=3, max_len=20, dtype=torch.bfloat16) == sum(
        part.nbytes for layer in state.layers for part in layer.values()
    )


def test_tree_adds_up_and_groups_equal_neighbours():
    root = books.tree(HYBRID)
    layers = [node for node in root.children if node.kind == "LayerModule"]
    assert [(node.name, node.count) for node in layers] == [("0", 1), ("1-2", 2)]
    assert root.params == sum(node.count * node.params for node in root.children) == books.params(HYBRID)
    assert root.flops_per_token == pytest.approx(sum(node.count * node.flops_per_token for node in root.children))
    assert root.state_bytes == sum(node.count * node.state_bytes for node in root.children)
    mix = layers[0].children[0]
    assert {child.name: child.shape for child in mix.children[-1].children}["k"] == (16, 32)


def test_tree_lines_show_all_copies_together():
    lines = tree_lines(books.tree(LLAMA), tokens=LLAMA.context)
    layers = next(line for line in lines if "0-2 LayerModule x 3" in line)
    parts = books.params_by_part(LLAMA)
    assert f"{parts['layers.mix'] + parts['layers.ffn']:,}" in layers
    column = lines[0].index("parameters") + len("parameters")
    assert all(line[column - 1].isdigit() for line in lines[1:] if "Linear" in line)
    assert lines[0].endswith(f"state of {LLAMA.context:,} tokens")
