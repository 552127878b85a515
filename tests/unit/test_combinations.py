"""Parts that cannot work together are refused when the spec is made, in one sentence that says what to change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import torch

from groundup.errors import GenerationError, SpecError
from groundup.mixers.attention import Attention
from groundup.mixers.base import MixerSpec
from groundup.mixers.block_sparse import BlockSparseAttention
from groundup.mixers.both_ways import BothWays
from groundup.mixers.chunked import ChunkedAttention
from groundup.mixers.cross import CrossAttention
from groundup.mixers.hashed import HashedAttention
from groundup.mixers.latent_attention import LatentAttention
from groundup.mixers.linear_attention import LinearAttention
from groundup.mixers.low_rank_attention import LowRankAttention
from groundup.mixers.mamba import Mamba
from groundup.mixers.mamba2 import Mamba2
from groundup.mixers.mlp import MLP
from groundup.mixers.moe import MoE
from groundup.mixers.recurrent import GRU
from groundup.mixers.s4 import S4D
from groundup.model.decoder import Decoder
from groundup.model.encoder import Encoder
from groundup.model.encoder_decoder import EncoderDecoder
from groundup.model.heads import NoHead, Project, Shifted, Tied
from groundup.model.layer import Layer
from groundup.model.residual import Residual
from groundup.model.reversible import Reversible, ReversibleDecoder
from groundup.model.stack import Stack
from groundup.parts.embed import Embed, NarrowEmbed
from groundup.parts.mask import Everything, Near, Window
from groundup.parts.norm import AcrossHeads, RMSNorm
from groundup.parts.position import ALiBi, Axial, Learned, RelativeBias, RoPE, SharedBias, Sinusoidal
from groundup.parts.router import TopOfSoftmax

pytestmark = pytest.mark.usefixtures("unchecked_signatures")

HEADS: dict[str, Any] = {"heads": 4, "head_width": 8}
LINEAR: dict[str, Any] = {"heads": 4, "key_width": 8, "value_width": 8}
OF_HEADS: Any = AcrossHeads(RMSNorm())
SIZES: dict[str, Any] = {"width": 32, "vocab": 50, "context": 64}
AnyStack = TypeVar("AnyStack", bound=Stack)


def attention(**fields: Any) -> Attention:
    given: dict[str, Any] = {**HEADS, "kv_heads": 4, **fields}
    return Attention(**given)


def model(kind: type[AnyStack], mixer: MixerSpec, **fields: Any) -> AnyStack:
    return kind(layers=(Layer(mix=Residual(mixer)),), **{**SIZES, **fields})


TRIED: dict[str, tuple[Callable[[], object], str]] = {
    "a window in an encoder": (lambda: model(Encoder, attention(mask=Window(8))), "hides what comes after; .* choose"),
    "a causal mask in an encoder": (lambda: model(Encoder, attention()), "hides what comes after; .* choose"),
    "attention over latents in an encoder": (
        lambda: model(Encoder, LatentAttention(heads=4, latent=8, key_width=8, turned_width=4, value_width=8)),
        "hides what comes after; .* choose",
    ),
    "attention in chunks in an encoder": (
        lambda: model(Encoder, ChunkedAttention(**HEADS)),
        "hides what comes after; .* choose",
    ),
    "hashed attention in an encoder": (
        lambda: model(Encoder, HashedAttention(factors=(4,), **HEADS)),
        "hides what comes after; .* choose",
    ),
    "a memory in an encoder": (
        lambda: model(Encoder, CrossAttention(kv_heads=4, **HEADS)),
        r"layers\.0\.mix\.mixer reads what an encoder made; an Encoder has none, drop it",
    ),
    "an activation that is not known": (
        lambda: MLP(hidden=8, act="gelo"),
        r"act='gelo'; did you mean 'gelu'.* expected one of gelu, ",
    ),
    "a bias for scores that are not made": (
        lambda: LinearAttention(key_heads=4, position=ALiBi(), **LINEAR),
        "ALiBi is added to scores, which linear attention has none of; choose RoPE",
    ),
    "a shared bias for scores that are not made": (
        lambda: LinearAttention(key_heads=4, position=SharedBias(), **LINEAR),
        "SharedBias is added to scores",
    ),
    "places of the stream in linear attention": (
        lambda: LinearAttention(key_heads=4, position=Learned(64), **LINEAR),
        "give it to the model's embed instead",
    ),
    "places of the stream in attention over latents": (
        lambda: LatentAttention(heads=4, latent=8, key_width=8, turned_width=4, value_width=8, position=Learned(64)),
        "give it to the model's embed instead",
    ),
    "waves in a stream of odd width": (
        lambda: model(Decoder, attention(), width=33, embed=Embed(position=Sinusoidal())),
        "need an even width, not 33",
    ),
    "places of two parts that are not the stream's": (
        lambda: model(Decoder, attention(), embed=Embed(position=Axial(shape=(8, 8), widths=(16, 8)))),
        r"widths=\(16, 8\) of Axial do not add up to the width 32",
    ),
    "places of heads in the stream": (
        lambda: model(Decoder, attention(), embed=Embed(position=RoPE())),
        "give it to the attention instead",
    ),
    "a norm of heads in the stream": (
        lambda: Residual(MLP(hidden=8), pre=OF_HEADS),
        "pre=AcrossHeads.*; expected .*LayerNorm or NoNorm or RMSNorm",
    ),
    "a decoder that reads no memory": (
        lambda: EncoderDecoder(
            encoder=model(Encoder, attention(mask=Everything()), head=NoHead()), decoder=model(Decoder, attention())
        ),
        "no part that reads what the encoder made; give it a cross part",
    ),
    "a shared bias of nobody": (
        lambda: model(Decoder, attention(position=SharedBias())),
        r"layers\.0\.mix\.mixer adds a bias .* to 4 heads, and embed\.position is NoPosition\(\); .*Bias\(heads=4\)",
    ),
    "a shared bias of other heads": (
        lambda: model(Decoder, attention(position=SharedBias()), embed=Embed(position=RelativeBias(heads=2))),
        r"adds a bias .* to 4 heads, and embed\.position is RelativeBias\(heads=2\)",
    ),
    "a narrow table read backwards": (
        lambda: model(Decoder, attention(), embed=NarrowEmbed(table_width=8), head=Tied()),
        r"the head reads 32 values and the vectors of the table that it shares have 8; use Untied, or .*table_width=8",
    ),
    "a table read backwards by fewer values": (
        lambda: model(Decoder, attention(), head=Tied(transform=Project(table_width=8))),
        "the head reads 8 values and the vectors of the table that it shares have 32; use Untied",
    ),
    "two streams that read a table backwards": (
        lambda: ReversibleDecoder(
            layers=(Reversible(mix=Residual(attention()), ffn=Residual(MLP(hidden=8))),), head=Shifted(), **SIZES
        ),
        "the head reads 64 values and the vectors of the table that it shares have 32; use Untied",
    ),
    "a text longer than the blocks": (
        lambda: model(Encoder, BlockSparseAttention(block=4, length=32, **HEADS)),
        r"context=64 is longer than the 32 tokens that layers\.0\.mix\.mixer can read; change one",
    ),
    "an encoder's mask in a decoder": (lambda: model(Decoder, attention(mask=Near(4))), "a Decoder must not"),
    "sums over the text in a decoder": (
        lambda: model(Decoder, LowRankAttention(rank=4, length=64, **HEADS)),
        "a Decoder must not",
    ),
    "a text longer than the sums": (
        lambda: model(Encoder, LowRankAttention(rank=4, length=32, **HEADS)),
        r"context=64 is longer than the 32 tokens that layers\.0\.mix\.mixer can read; change one",
    ),
    "a text longer than the places": (
        lambda: model(Decoder, attention(), embed=Embed(position=Learned(32))),
        r"context=64 is longer than the 32 tokens that embed\.position can read; change one",
    ),
    "a text longer than the table of places": (
        lambda: model(Decoder, attention(), embed=Embed(position=Axial(shape=(7, 9), widths=(16, 16)))),
        "context=64 is longer than the 63 tokens",
    ),
    "an encoder and a decoder of other widths": (
        lambda: EncoderDecoder(
            encoder=model(Encoder, attention(mask=Everything())), decoder=model(Decoder, attention(), width=64)
        ),
        "the encoder is 32 wide and the decoder 64; make them as wide",
    ),
    "blocks that do not divide the length": (
        lambda: BlockSparseAttention(block=64, length=1000, **HEADS),
        "length=1000 is not a multiple of block=64; change one of them",
    ),
    "attention from both sides": (
        lambda: BothWays(GRU()).replace(mixer=attention()),
        "BothWays has mixer=Attention.*; expected GRU or LSTM or RNN",
    ),
    "more sums than tokens": (lambda: LowRankAttention(rank=9, length=8, **HEADS), "choose a smaller one"),
    "buckets that are not in pairs": (lambda: HashedAttention(factors=(3,), **HEADS), "give even numbers"),
    "key heads that do not divide": (lambda: attention(kv_heads=3), "choose kv_heads from 1, 2, 4"),
    "key heads of linear attention that do not divide": (
        lambda: LinearAttention(key_heads=3, **LINEAR),
        "choose key_heads from 1, 2, 4",
    ),
    "groups that do not divide": (lambda: Mamba2(heads=3, head_width=8, groups=2, states=4), "change one of them"),
    "half a pair of states": (lambda: S4D(states=5), "choose an even number"),
    "half a pair that turns": (lambda: attention(head_width=7), "choose a fraction"),
    "places of the stream in heads": (lambda: attention(position=Learned(64)), "give it to the model's embed instead"),
    "a fraction that turns nothing": (lambda: attention(position=RoPE(fraction=0.1)), "choose a fraction"),
    "more experts active than there are": (lambda: MoE(experts=2, active=3, hidden=8), "choose at most as many"),
    "experts that make no groups": (
        lambda: MoE(experts=7, active=2, hidden=8, router=TopOfSoftmax(groups=3, kept=2)),
        "change one of them",
    ),
}


def test_an_encoder_takes_recurrences():
    for mixer in (Mamba(states=4, rank=2), GRU(), BothWays(GRU()), LinearAttention(key_heads=4, **LINEAR)):
        model(Encoder, mixer)


@pytest.mark.parametrize("name", TRIED)
def test_it_is_refused_in_one_sentence(name):
    make, says = TRIED[name]
    with pytest.raises(SpecError, match=says) as refused:
        make()
    assert "\n" not in str(refused.value)


def test_a_recurrence_that_is_asked_to_rewind_says_what_to_do():
    built = model(Decoder, Mamba(states=4, rank=2)).build()
    state = built.new_state(1, 8)
    built(torch.tensor([[1, 2, 3]]), state)
    with pytest.raises(GenerationError, match="cannot rewind; fork the state before the tokens to forget"):
        state.rewind(torch.tensor([1]))
