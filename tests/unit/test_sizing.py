"""A design at another size is the same design, and meets the figure that was asked for."""

from __future__ import annotations

from typing import Any

import pytest

from groundup.errors import ConfigError
from groundup.families import PRESETS
from groundup.model.decoder import Decoder
from groundup.model.layer import LayerSpec
from groundup.parts.position import Learned
from groundup.planner import books
from groundup.planner.sizing import fitted, lengthened, sized
from groundup.specs import walk

pytestmark = pytest.mark.usefixtures("unchecked_signatures")

DECODERS = sorted(name for name, make in PRESETS.items() if isinstance(make(), Decoder))
DESIGNS = ["gpt2", "llama-3-8b", "gemma-3-4b", "bloom-560m", "mamba-130m", "mamba2-130m", "rwkv-4-169m", "rwkv-7-0.1b"]


def design(name: str) -> Any:
    return PRESETS[name]()


def mixer(layer: LayerSpec) -> Any:
    assert layer.mix is not None
    return layer.mix.mixer


def flops(spec: Decoder) -> float:
    return books.forward_flops_per_token(spec, context=128)


@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_keeps_its_kinds_at_another_size(name: str):
    whole = design(name)
    small = sized(whole, width=128, vocab=512, context=128)
    assert (small.width, small.vocab, small.context) == (128, 512, 128)
    kinds = [{type(node) for layer in spec.layers for _, node in walk(layer)} for spec in (small, whole)]
    assert kinds[0] == kinds[1]
    assert books.params(small) < 60e6


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize(("measure", "target"), [(flops, 8e6), (books.params, 3e6)], ids=["flops", "params"])
def test_a_figure_is_met_within_two_percent(name: str, measure, target: float):
    made = fitted(design(name), target=target, measure=measure, vocab=2048, context=128)
    assert measure(made) == pytest.approx(target, rel=0.02)


def test_depth_goes_with_the_width_and_counts_parts():
    assert [len(sized(design("gpt2"), width=w, vocab=512, context=64).layers) for w in (64, 256, 768)] == [1, 4, 12]
    assert len(sized(design("mamba-130m"), width=256, vocab=512, context=64).layers) == 8


def test_heads_keep_their_width_and_their_shares():
    llama = mixer(sized(design("llama-3-8b"), width=1024, vocab=512, context=64).layers[0])
    assert (llama.heads, llama.kv_heads, llama.head_width) == (8, 2, 128)
    narrow = mixer(sized(design("llama-3-8b"), width=256, vocab=512, context=64).layers[0])
    assert (narrow.heads, narrow.kv_heads, narrow.head_width) == (4, 1, 64)


def test_pattern_of_layers_is_kept_whole():
    gemma = sized(design("gemma-3-4b"), width=1024, vocab=512, context=64)
    windows = [type(mixer(layer).mask).__name__ for layer in gemma.layers]
    assert windows[:6] == ["Window"] * 5 + ["Causal"] and len(windows) % 6 == 0


def test_learnt_places_are_as_many_as_the_context():
    assert lengthened(design("gpt2"), 4096).embed.position == Learned(4096)


def test_a_figure_that_no_size_meets_is_told():
    with pytest.raises(ConfigError, match="no size of this architecture comes within 2% of 5,000"):
        fitted(design("qwen3-30b-a3b"), target=5e3, measure=books.params, vocab=2048, context=128)


def test_a_pattern_is_repeated_otherwise_where_heads_leave_a_gap():
    design = PRESETS["mamba2-130m"]()
    assert isinstance(design, Decoder)
    found = fitted(design, target=180_000, measure=books.params, vocab=1024, context=256)  # 4 heads are fewer, 5 more
    assert books.params(found) == pytest.approx(180_000, rel=0.02)
