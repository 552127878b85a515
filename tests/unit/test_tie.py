"""Tied layers have one set of weights, which is counted, trained and saved once, and a state for each use."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from groundup.context import Context
from groundup.errors import GenerationError, SpecError
from groundup.hub import folder
from groundup.mixers.attention import Attention
from groundup.mixers.mamba import Mamba
from groundup.mixers.mamba2 import Mamba2
from groundup.mixers.mlp import GatedMLP
from groundup.mixers.s4 import S4D
from groundup.mixers.s5 import S5
from groundup.mixers.zamba import AdaptedMLP, RecallAttention
from groundup.model.decoder import Decoder
from groundup.model.layer import Fed, Layer, LayerSpec, Stacked
from groundup.model.residual import Residual
from groundup.parts.mask import Everything
from groundup.parts.position import NoPosition
from groundup.planner import books

ATTENTION = Residual(Attention(heads=2, kv_heads=2, head_width=4))
LAYER = Layer(mix=ATTENTION, ffn=Residual(GatedMLP(hidden=12)))
ADAPTED = Layer(mix=ATTENTION, ffn=Residual(AdaptedMLP(hidden=12, rank=2)), tie="a")
IDS = torch.arange(10).view(2, 5)


def decoder(*layers: LayerSpec) -> Decoder:
    return Decoder(width=8, vocab=20, context=16, layers=layers)


def weights(*layers: LayerSpec) -> int:
    return sum(p.numel() for p in decoder(*layers).build().parameters())


def drawn(*layers: LayerSpec) -> Any:
    model = decoder(*layers).build().double()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.5)
    return model


def test_tied_layers_compute_what_copies_of_one_would():
    tied, plain = drawn(*[LAYER.replace(tie="a")] * 3), drawn(*[LAYER] * 3)
    mine = tied.state_dict()
    plain.load_state_dict(
        {
            name: mine[name.replace("layers.1", "layers.0").replace("layers.2", "layers.0")]
            for name in plain.state_dict()
        }
    )
    torch.testing.assert_close(tied(IDS), plain(IDS))
    tied(IDS).square().sum().backward()
    plain(IDS).square().sum().backward()
    slopes = {name: p.grad for name, p in plain.named_parameters()}
    for name, p in tied.named_parameters():
        copies = [slopes[name.replace("layers.0", f"layers.{i}")] for i in (range(3) if "layers" in name else [0])]
        torch.testing.assert_close(p.grad, sum(copies))


def test_weights_of_tied_layers_count_once_and_their_work_at_every_use():
    one, three, copies = (decoder(*layers) for layers in ([LAYER], [LAYER.replace(tie="a")] * 3, [LAYER] * 3))
    assert books.params(three) == books.params(one) == weights(*three.layers)
    assert books.forward_flops_per_token(three, context=16) == books.forward_flops_per_token(copies, context=16)
    sizes = {"rows": 2, "max_len": 16, "dtype": torch.float32}
    assert books.state_bytes(three, **sizes) == books.state_bytes(copies, **sizes)


def test_what_is_each_users_own_is_not_shared():
    own = 2 * (8 + 12 + 12)
    assert weights(ADAPTED, ADAPTED) == weights(ADAPTED) + own
    assert books.params(decoder(*[ADAPTED] * 4)) == weights(ADAPTED) + 3 * own
    names = drawn(ADAPTED, ADAPTED).state_dict().keys()
    assert {name for name in names if name.startswith("layers.1")} == {
        f"layers.1.ffn.mixer.own.{name}.weight" for name in ("low", "gate", "up")
    }


def test_ties_hold_in_copies_and_in_folders(tmp_path):
    model = drawn(ADAPTED, LAYER, ADAPTED)
    folder.write(model.state_dict(), spec=model.spec, folder=tmp_path / "model")
    for other in (copy.deepcopy(model), folder.read(tmp_path / "model")):
        torch.testing.assert_close(other(IDS), model(IDS))
        before = other(IDS)
        with torch.no_grad():
            other.get_parameter("layers.0.mix.mixer.q.weight").zero_()
        assert not torch.equal(other(IDS), before)
        assert other.layers[2].part("mix").mixer.lent is other.layers[0].part("mix").mixer


def test_layers_of_other_parts_cannot_be_tied():
    other = Layer(mix=ATTENTION, tie="a")
    with pytest.raises(SpecError, match=r"layers\.1 is tied as 'a'"):
        decoder(ADAPTED, other)
    with pytest.raises(SpecError, match=r"layers\.1 is tied as 'a'"):
        decoder(ADAPTED, Fed(mix=ATTENTION, block=Stacked(mix=ATTENTION, tie="a")))


def test_a_fed_mixer_reads_more_than_is_added_to():
    model = drawn(Fed(mix=ATTENTION, block=LAYER))
    layer, x = model.layers[0], torch.randn(1, 3, 8, dtype=torch.float64)
    ctx = Context.whole(x)
    fed = layer["feed"](layer["block"](x, ctx))
    mixed = layer["mix"].mixer(layer["mix"].pre(x + fed), ctx)
    torch.testing.assert_close(layer(x, ctx), x + mixed)


def test_bad_combinations_are_refused_when_the_spec_is_made():
    blind = Residual(ATTENTION.mixer.replace(mask=Everything()))
    with pytest.raises(SpecError, match=r"layers\.0\.block\.mix\.mixer is .*, which sees what comes after"):
        decoder(Fed(mix=ATTENTION, block=Stacked(mix=blind)))
    with pytest.raises(SpecError, match="head_width=5 is shared by two streams"):
        RecallAttention(heads=1, kv_heads=1, head_width=5, position=NoPosition())
    with pytest.raises(SpecError, match="the smaller one first"):
        Mamba(states=4, rank=2, steps=(0.1, 0.01))
    with pytest.raises(SpecError, match="the smaller one first"):
        Mamba2(heads=2, head_width=4, states=4, steps=(0.0, 0.1))


def test_a_recurrent_model_cannot_rewind_and_says_what_to_do():
    mixers = (Mamba(states=4, rank=2), Mamba2(heads=2, head_width=4, states=4), S4D(states=4), S5(states=4))
    for mixer in mixers:
        state = decoder(LAYER, Layer(mix=Residual(mixer))).build().new_state(2, 8)
        with pytest.raises(GenerationError, match=r"^[^\n]*cannot rewind; fork the state[^\n]*$"):
            state.rewind(torch.tensor([1, 1]))


def test_a_fed_layer_has_one_part():
    with pytest.raises(SpecError, match="give it a mix part and no other"):
        Fed(mix=ATTENTION, ffn=ATTENTION, block=LAYER)
