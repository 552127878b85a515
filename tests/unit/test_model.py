"""Residual parts, layers and decoders: the one residual rule by hand, names that are promised, weights that start."""

from __future__ import annotations

import copy

import pytest
import torch

from groundup.context import Context
from groundup.errors import GenerationError, SpecError
from groundup.mixers.attention import Attention
from groundup.mixers.mlp import MLP, GatedMLP
from groundup.model.decoder import Decoder
from groundup.model.heads import Tied, Untied
from groundup.model.layer import Layer, Parallel, pattern
from groundup.model.residual import Residual
from groundup.parts.embed import Embed
from groundup.parts.linear import Linear
from groundup.parts.norm import LayerNorm, NoNorm, RMSNorm
from groundup.parts.position import Learned

MIX = Residual(Attention(heads=2, kv_heads=1, head_width=4, bias=True))
FFN = Residual(GatedMLP(hidden=12))


def decoder(*layers, **settings) -> Decoder:
    return Decoder(width=8, vocab=11, context=16, layers=layers or (Layer(mix=MIX, ffn=FFN),) * 2, **settings)


def context(tokens: int = 3) -> Context:
    return Context.whole(torch.zeros(1, tokens))


def filled(spec, *, width: int = 8):
    """Returns the module in float64 with all weights drawn."""
    made = spec.build(width).double().eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(torch.randn(weight.shape, dtype=torch.float64))
    return made


@pytest.mark.parametrize(
    "places",
    [
        {},
        {"pre": NoNorm()},
        {"pre": RMSNorm(), "post": LayerNorm()},
        {"pre": NoNorm(), "post": RMSNorm(), "scale": 0.25},
        {"pre": NoNorm(), "out": LayerNorm()},
        {"pre": LayerNorm(), "post": RMSNorm(), "out": LayerNorm(bias=False), "scale": -2.0},
    ],
    ids=["pre", "none", "sandwich", "post, scaled", "out", "all"],
)
def test_one_residual_rule(places):
    part, x = filled(Residual(MLP(hidden=5), **places)), torch.randn(1, 3, 8, dtype=torch.float64)
    expected = part.out(x + places.get("scale", 1.0) * part.post(part.mixer(part.pre(x), context())))
    torch.testing.assert_close(part(x, context()), expected)
    given = {"pre": RMSNorm(), "post": NoNorm(), "out": NoNorm()} | places
    assert all(type(part.get_submodule(name)) is type(given[name].build(8)) for name in ("pre", "post", "out"))


def test_layer_runs_its_parts_in_order():
    layer, x = filled(Layer(mix=MIX, ffn=FFN)), torch.randn(1, 3, 8, dtype=torch.float64)
    expected = layer.part("ffn")(layer.part("mix")(x, context()), context())
    torch.testing.assert_close(layer(x, context()), expected)
    assert list(Layer(ffn=FFN, cross=MIX, mix=MIX).parts) == ["mix", "cross", "ffn"]


def test_parallel_equals_the_sum_of_its_parts():
    spec = Parallel(mix=MIX, ffn=FFN.replace(scale=0.5), pre=LayerNorm())
    layer, x = filled(spec), torch.randn(1, 3, 8, dtype=torch.float64)
    shared = layer["pre"](x)
    mix, ffn = (part.mixer(part.pre(shared), context()) for part in (layer.part("mix"), layer.part("ffn")))
    torch.testing.assert_close(layer(x, context()), x + mix + 0.5 * ffn)


def test_parallel_parts_with_a_norm_of_the_sum_are_refused():
    with pytest.raises(SpecError, match=r"ffn\.out=LayerNorm\(\) has no place in Parallel"):
        Parallel(mix=MIX, ffn=FFN.replace(out=LayerNorm()))


def test_layer_without_parts_is_refused():
    for kind in (Layer, Parallel):
        with pytest.raises(SpecError, match="has no part"):
            kind()


def test_pattern_repeats_and_may_be_cut_short():
    a, b = Layer(mix=MIX), Layer(ffn=FFN)
    assert pattern([a, a, b], of=5) == (a, a, b, a, a)


@pytest.mark.parametrize("name", ["width", "vocab", "context"])
def test_size_of_nothing_is_refused(name):
    with pytest.raises(SpecError, match=f"Decoder has {name}=0; expected a whole number from 1"):
        decoder().replace(**{name: 0})


def test_weights_have_the_promised_names():
    names = set(decoder(*(Layer(mix=MIX, ffn=FFN),) * 8, embed=Embed(position=Learned(16))).build().state_dict())
    assert {n for n in names if n.startswith("layers.7.")} == {
        "layers.7.mix.pre.weight",
        *(f"layers.7.mix.mixer.{x}.{end}" for x in "qkv" for end in ("weight", "bias")),
        "layers.7.mix.mixer.out.weight",
        "layers.7.ffn.pre.weight",
        *(f"layers.7.ffn.mixer.{x}.weight" for x in ("gate", "up", "down")),
    }
    assert {n for n in names if not n.startswith("layers.")} == {
        "embed.weight",
        "embed.position.weight",
        "norm.weight",
        "head.weight",
    }


def test_same_seed_gives_the_same_weights():
    one, two, other = (decoder().build(seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["embed.weight"], other["embed.weight"])


def test_building_leaves_the_global_generator_alone():
    chance = torch.get_rng_state()
    decoder(embed=Embed(position=Learned(16)), head=Untied(bias=True)).build(seed=1)
    assert torch.equal(torch.get_rng_state(), chance)


def test_every_weight_starts_as_its_rule_says():
    wide = Residual(Attention(heads=4, kv_heads=4, head_width=32, bias=True, out_bias=True))
    layer = Layer(mix=wide, ffn=Residual(MLP(hidden=256, bias=True)))
    model = decoder(*(layer,) * 8).replace(width=128, vocab=512, head=Untied(bias=True)).build()
    for name, module in model.named_modules():
        if isinstance(module, Linear):
            expected = 0.02 / 16**0.5 if name.endswith((".out", ".down")) else 0.02
            assert module.weight.std().item() == pytest.approx(expected, rel=0.05)
            assert module.bias.abs().max() == 0
    assert model.embed.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert torch.equal(model.norm.get_parameter("weight"), torch.ones(128))


def test_copy_shares_nothing_and_computes_the_same():
    for head in (Tied(), Untied()):
        model, ids = decoder(head=head).build(), torch.arange(5)[None]
        copied, before = copy.deepcopy(model), model(ids)
        with torch.no_grad():
            for weight in model.parameters():
                weight.zero_()
        assert torch.equal(copied(ids), before)


def test_tied_head_owns_nothing_and_follows_the_embedding():
    model, ids = decoder(head=Tied()).build(), torch.arange(5)[None]
    assert not [name for name in model.state_dict() if name.startswith("head")]
    other = decoder(head=Tied()).build(seed=9)
    model.load_state_dict(other.state_dict(), assign=True)
    assert model.head.weight is model.embed.weight
    assert torch.equal(model(ids), other(ids))
    model.double()
    assert model.head.weight.dtype == torch.float64
    assert model(ids).dtype == torch.float64


def test_model_of_the_meta_device_takes_weights_by_assignment():
    with torch.device("meta"):
        model = decoder(head=Tied()).build()
    real, ids = decoder(head=Tied()).build(), torch.arange(5)[None]
    model.load_state_dict(real.state_dict(), assign=True)
    assert torch.equal(model(ids), real(ids))


def test_logits_are_float32_whatever_the_weights():
    model, ids = decoder().build(), torch.arange(5)[None]
    exact = model(ids)
    narrow = model.bfloat16()(ids)
    assert narrow.dtype == torch.float32
    assert (narrow - exact).norm() < 0.02 * exact.norm()


def test_hidden_states_are_what_the_head_reads():
    model, ids = decoder().build(), torch.arange(5)[None]
    assert model.hidden(ids).shape == (1, 5, 8)
    assert torch.equal(model.logits(model.hidden(ids)), model(ids))


def test_dropout_draws_in_training_alone():
    spec = decoder(Layer(mix=MIX.replace(dropout=0.5), ffn=FFN.replace(dropout=0.5)), embed=Embed(dropout=0.5))
    still = decoder(Layer(mix=MIX, ffn=FFN)).build().eval()
    model, ids = spec.build().eval(), torch.arange(5)[None]
    assert torch.equal(model(ids), still(ids))
    model.train()
    assert not torch.allclose(model(ids), still(ids))


@torch.no_grad()
def test_text_longer_than_the_state_is_refused_and_nothing_is_lost():
    model, ids = decoder().build().eval(), torch.arange(6)[None]
    state = model.new_state(1, 6)
    model(ids[:, :4], state)
    with pytest.raises(GenerationError, match="room for 6 tokens and 7 were to be read; make it with a larger max_len"):
        model(ids[:, :3], state)
    assert torch.allclose(model(ids[:, 4:], state), model(ids)[:, 4:], atol=1e-6)


def test_packed_documents_do_not_come_with_a_state():
    model, ids = decoder().build(), torch.arange(4)[None]
    for argument in ("segments", "positions"):
        with pytest.raises(GenerationError, match="for whole sequences"):
            model(ids, model.new_state(1, 8), **{argument: ids})


def test_a_table_that_no_machine_can_hold_is_refused():
    with pytest.raises(SpecError, match="a matrix of 1,073,741,824 by 1,048,576 weights is more than any machine"):
        decoder(head=Tied()).replace(vocab=2**30, width=2**20).build()
