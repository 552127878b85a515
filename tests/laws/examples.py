"""The models that the laws run over: hand-made ones with every registered part, and every preset made small."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import torch

import groundup.mixers
import groundup.model
import groundup.parts
import signatures
from groundup.families import PRESETS
from groundup.mixers.aligned import Aligned, AttentiveGRU, Summary
from groundup.mixers.attention import Attention, ClippedAttention, GatedAttention
from groundup.mixers.block_sparse import BlockSparseAttention, DrawnBlocks, FirstBlock
from groundup.mixers.both_ways import BothWays
from groundup.mixers.chunked import ChunkedAttention
from groundup.mixers.cross import CrossAttention
from groundup.mixers.gated_conv import GatedConv
from groundup.mixers.griffin import RGLRU
from groundup.mixers.hashed import HashedAttention
from groundup.mixers.latent_attention import LatentAttention
from groundup.mixers.linear_attention import LinearAttention
from groundup.mixers.local_global import LocalGlobalAttention
from groundup.mixers.low_rank_attention import LowRankAttention
from groundup.mixers.mamba import Mamba
from groundup.mixers.mamba2 import Mamba2
from groundup.mixers.mlp import MLP, ChunkedMLP, GatedMLP, WeighedMLP
from groundup.mixers.moe import MoE
from groundup.mixers.recurrent import GRU, LSTM, RNN
from groundup.mixers.rwkv import RWKV4, ChannelMix
from groundup.mixers.rwkv5 import RWKV5
from groundup.mixers.rwkv7 import RWKV7, ShiftedMLP
from groundup.mixers.s4 import S4, S4D
from groundup.mixers.s5 import S5
from groundup.mixers.zamba import AdaptedMLP, RecallAttention
from groundup.model.decoder import Decoder
from groundup.model.encoder import Encoder
from groundup.model.encoder_decoder import EncoderDecoder
from groundup.model.heads import Dense, NoHead, Shifted, Tied, Untied
from groundup.model.layer import Fed, Layer, LayerSpec, Parallel, Stacked, pattern
from groundup.model.model import Model
from groundup.model.residual import Residual
from groundup.model.reversible import Reversible, ReversibleDecoder
from groundup.model.stack import Stack
from groundup.parts.align import Additive, General
from groundup.parts.decay import FixedDecay, HeadDecay, LowRankDecay
from groundup.parts.embed import Embed
from groundup.parts.feature import Plain, RandomPositive, UnitLength
from groundup.parts.gating import ClampedProduct, Ungated
from groundup.parts.init import ScaledNormal
from groundup.parts.mask import Chunks, Everything, Graph, Near, Prefix, Window
from groundup.parts.norm import AcrossHeads, LayerNorm, NoNorm, RMSNorm
from groundup.parts.position import (
    ALiBi,
    Axial,
    Learned,
    LinearScaling,
    Llama3Scaling,
    NoPosition,
    NTKScaling,
    RelativeBias,
    RoPE,
    RoundedALiBi,
    SharedBias,
    Sinusoidal,
    YaRN,
)
from groundup.parts.reading import Gated, Normed
from groundup.parts.router import GroupedSigmoid, SoftmaxOfTop, TopOfSoftmax
from groundup.parts.score import Capped, LeakySum, Sink
from groundup.parts.spectrum import Inv, LegS
from groundup.parts.update import Delta
from groundup.specs import Spec

VOCAB, CONTEXT = 97, 64

# What a size becomes, by the name of its field; the number of key/value heads keeps its kind: all, some or one.
SMALL: dict[str, Callable[[Any], Any]] = {
    "width": lambda _: 32,
    "table_width": lambda _: 16,
    "vocab": lambda _: VOCAB,
    "context": lambda _: CONTEXT,
    "length": lambda _: CONTEXT,
    "hidden": lambda spec: spec.hidden and 48,
    "heads": lambda _: 4,
    "kv_heads": lambda spec: 4 if spec.kv_heads == spec.heads else 1 if spec.kv_heads == 1 else 2,
    "head_width": lambda spec: 16 if isinstance(spec, RecallAttention) else 8,  # of two streams
    "key_heads": lambda spec: 4 if spec.key_heads == spec.heads else 2,
    "key_width": lambda _: 8,
    "value_width": lambda _: 8,
    "features": lambda _: 12,
    "rank": lambda spec: spec.rank and 4,
    "states": lambda spec: 8 if isinstance(spec, S4 | S4D | S5) else 5,  # in pairs
    "blocks": lambda _: 2,
    "channels": lambda _: 32,
    "decay_rank": lambda _: 3,
    "rate_rank": lambda _: 2,
    "gate_rank": lambda _: 5,
    "value_rank": lambda spec: spec.value_rank and 4,
    "groups": lambda spec: 1 if spec.groups == 1 else 2,
    "kept": lambda _: 1,
    "latent": lambda _: 12,
    "query_latent": lambda spec: spec.query_latent and 10,
    "turned_width": lambda _: 4,
    "size": lambda _: 5,
    "reach": lambda _: 3,
    "chunk": lambda _: 6,
    "factors": lambda spec: (4, 2)[: len(spec.factors)],
    "rounds": lambda spec: min(spec.rounds, 2),
    "shape": lambda _: (8, 8),
    "widths": lambda _: (8, 24),
    "block": lambda _: 4,
    "seed": lambda _: 0,
    "original": lambda _: 16,
    "experts": lambda _: 4,
    "capacity": lambda spec: spec.capacity and 3,
    "active": lambda spec: min(spec.active, 2),
    "fraction": lambda spec: spec.fraction if 8 * spec.fraction % 2 == 0 else 0.5,
}


def shrink(spec: Model) -> Any:
    """Returns the model made small enough to run: the sizes of `SMALL`, each kind of layer once, two at least."""
    if not isinstance(spec, Stack):
        return spec.replace(**{name: shrink(stack) for name, stack in spec.stacks.items()})
    small = _shrunk(spec, width=spec.width)
    distinct = small.with_distinct_layers().layers
    return small.replace(layers=distinct if len(distinct) > 1 else distinct * 2)


def _shrunk(value: Any, *, width: int) -> Any:
    if isinstance(value, tuple):
        return tuple(_shrunk(item, width=width) for item in value)
    if not isinstance(value, Spec):
        return value
    settings = {f.name: getattr(value, f.name) for f in fields(value)}
    sizes = {k for k, v in settings.items() if k in SMALL and not isinstance(v, Spec)}
    small = {k: SMALL[k](value) if k in sizes else _shrunk(v, width=width) for k, v in settings.items()}
    if settings.get("hidden") == 4 * width:  # families that have no other width inside say nothing of it
        small["hidden"] = 4 * 32
    return value.replace(**small)


def attention(*, heads: int = 4, kv_heads: int = 2, head_width: int = 8, **settings: Any) -> Attention:
    """Returns attention of a small size."""
    return Attention(heads=heads, kv_heads=kv_heads, head_width=head_width, **settings)


def linear(*, heads: int = 4, key_heads: int = 4, key_width: int = 8, value_width: int = 6, **settings: Any) -> Layer:
    """Returns a layer of linear attention of a small size."""
    sizes = {"heads": heads, "key_heads": key_heads, "key_width": key_width, "value_width": value_width}
    return Layer(mix=Residual(LinearAttention(**sizes, **settings)))


def latent(**changes: Any) -> LatentAttention:
    """Returns attention over latents of a small size."""
    sizes: dict[str, Any] = {"heads": 4, "latent": 12, "key_width": 8, "turned_width": 4, "value_width": 6}
    return LatentAttention(**(sizes | changes))


def decoder(*layers: LayerSpec, **settings: Any) -> Decoder:
    """Returns a decoder of a small size with these layers."""
    return Decoder(width=32, vocab=VOCAB, context=CONTEXT, layers=layers, **settings)


def encoder(*layers: LayerSpec, **settings: Any) -> Encoder:
    """Returns an encoder of a small size with these layers."""
    return Encoder(width=32, vocab=VOCAB, context=CONTEXT, layers=layers, **settings)


def _rotated(position: RoPE, act: str) -> Layer:
    return Layer(mix=Residual(attention(position=position)), ffn=Residual(MLP(hidden=48, act=act)))


PLAIN = Layer(mix=Residual(attention()), ffn=Residual(GatedMLP(hidden=48)))
FULL = SoftmaxOfTop(capacity=3)
CENTRED, ROOT = LayerNorm(eps=1e-6), RMSNorm()
OFFSET, UNLEARNT = RMSNorm(offset=1.0), LayerNorm(weight=False, bias=False)
LOCAL = Layer(
    mix=Residual(attention(mask=Window(5), norm=ROOT, position=RoPE(theta=100.0)), post=ROOT),
    ffn=Residual(GatedMLP(hidden=48, act="gelu_tanh"), post=ROOT),
)

RING = tuple((place, (place + 1) % 15) for place in range(15))

HAND_MADE: dict[str, Model] = {
    "post-norm": decoder(
        Layer(
            mix=Residual(
                attention(kv_heads=4, position=NoPosition(), bias=True, out_bias=True), pre=NoNorm(), out=CENTRED
            ),
            ffn=Residual(MLP(hidden=48, act="relu", bias=True), pre=NoNorm(), out=CENTRED),
        ),
        embed=Embed(position=Sinusoidal(), width_power=0.5, norm=CENTRED),
        norm=NoNorm(),
        head=Untied(bias=True),
    ),
    "sandwich": decoder(*pattern([LOCAL, LOCAL, PLAIN], of=4), head=Tied()),
    "reordered": decoder(
        Layer(
            mix=Residual(attention(norm=CENTRED, position=RoPE(fraction=0.5)), pre=NoNorm(), post=ROOT),
            ffn=Residual(GatedMLP(hidden=48, act="relu2", bias=True), pre=NoNorm(), post=ROOT),
        ),
    ),
    "parallel": decoder(
        Parallel(
            mix=Residual(attention(position=RoPE(fraction=0.25), bias=True), pre=CENTRED),
            ffn=Residual(MLP(hidden=48, act="gelu", bias=True), pre=CENTRED, scale=0.5),
        ),
    ),
    "parallel, one norm": decoder(
        Parallel(
            mix=Residual(attention(kv_heads=1), pre=NoNorm()),
            ffn=Residual(GatedMLP(hidden=48), pre=NoNorm()),
            pre=LayerNorm(bias=False),
        ),
        norm=LayerNorm(bias=False),
    ),
    "lone parts": decoder(
        Layer(mix=Residual(attention(mask=Window(1)), scale=0.3)),
        Layer(ffn=Residual(MLP(hidden=48, act="silu"))),
        Layer(mix=Residual(attention()), cross=Residual(attention(mask=Window(3))), ffn=Residual(GatedMLP(hidden=48))),
        init=ScaledNormal(deviation=0.1),
    ),
    "scaled rotations": decoder(
        _rotated(RoPE(scaling=LinearScaling(factor=2.0)), "gelu"),
        _rotated(RoPE(scaling=NTKScaling(factor=4.0)), "relu"),
        _rotated(RoPE(scaling=Llama3Scaling(original=32)), "relu2"),
        _rotated(RoPE(theta=500.0, scaling=YaRN(factor=4.0, original=16)), "gelu_tanh"),
        _rotated(RoPE(theta=50.0, scaling=YaRN(factor=4.0, original=32, fast=2.0, whole=False)), "gelu_sigmoid"),
    ),
    "odd heads": decoder(
        Layer(
            mix=Residual(attention(heads=6, kv_heads=3, head_width=10, mask=Window(5), out_bias=True), pre=CENTRED),
            ffn=Residual(MLP(hidden=47), pre=CENTRED),
        ),
        embed=Embed(position=Learned(CONTEXT, offset=2)),
    ),
    "sloped": decoder(
        Layer(mix=Residual(attention(position=ALiBi(), heads=6, mask=Window(5)))),
        Layer(mix=Residual(attention(position=ALiBi(steepest=4.0)))),
        Layer(mix=Residual(attention(position=RoundedALiBi()))),
    ),
    "capped": decoder(
        Layer(mix=Residual(attention(score=Capped(cap=0.5, scale=0.4)), pre=OFFSET)),
        Layer(mix=Residual(attention(score=Sink(), mask=Window(5), norm=AcrossHeads(ROOT)), pre=UNLEARNT)),
        Layer(mix=Residual(attention(score=Sink(scale=0.2), position=ALiBi()))),
        head=Untied(cap=6.0, width_power=-0.25),
    ),
    "gated": decoder(
        Layer(
            mix=Residual(GatedAttention(heads=4, kv_heads=2, head_width=6, mask=Window(5), bias=True)),
            ffn=Residual(WeighedMLP(hidden=24, bias=True)),
        ),
        Layer(
            mix=Residual(ClippedAttention(heads=4, kv_heads=2, head_width=6, bias=True, limit=0.4)),
            ffn=Residual(MoE(experts=3, active=2, hidden=16, shared=WeighedMLP(hidden=8))),
        ),
    ),
    "tied": decoder(
        *(PLAIN.replace(tie="a"),) * 2,
        Parallel(mix=Residual(attention()), ffn=Residual(MLP(hidden=24)), pre=ROOT, tie="b"),
        Layer(mix=Residual(Mamba(states=3, rank=2)), tie="c"),
        PLAIN.replace(tie="a"),
        PLAIN,
        Parallel(mix=Residual(attention()), ffn=Residual(MLP(hidden=24)), pre=ROOT, tie="b"),
        Layer(mix=Residual(Mamba(states=3, rank=2)), tie="c"),
    ),
    "fed": decoder(
        *(
            Fed(
                mix=Residual(RGLRU(channels=16, heads=2), scale=0.5),
                block=Stacked(
                    mix=Residual(RecallAttention(heads=4, kv_heads=2, head_width=6, rank=3, mask=Window(5))),
                    ffn=Residual(AdaptedMLP(hidden=24, rank=3, bias=True)),
                    tie="shared",
                ),
            ),
            PLAIN,
        )
        * 2,
        Fed(mix=Residual(GatedMLP(hidden=24)), block=PLAIN),
    ),
    "prefix": decoder(
        Layer(mix=Residual(attention(mask=Prefix())), ffn=Residual(GatedMLP(hidden=48))),
        Layer(mix=Residual(attention(mask=Prefix(), position=ALiBi()))),
    ),
    "no places": decoder(Layer(mix=Residual(attention(position=NoPosition()))), head=Shifted()),
    "experts": decoder(
        Layer(mix=Residual(attention()), ffn=Residual(MoE(experts=5, active=2, hidden=48))),
        Layer(
            ffn=Residual(MoE(experts=4, active=1, hidden=24, act="gelu", router=TopOfSoftmax(balance=0.01, z=0.001)))
        ),
        Layer(ffn=Residual(MoE(experts=6, active=2, hidden=8, router=TopOfSoftmax(groups=3, kept=2, scale=1.5)))),
        Layer(ffn=Residual(MoE(experts=1, active=1, hidden=16, router=SoftmaxOfTop(balance=0.1)))),
        Parallel(
            mix=Residual(attention(kv_heads=1)),
            ffn=Residual(
                MoE(
                    experts=8,
                    active=3,
                    hidden=8,
                    router=GroupedSigmoid(groups=4, kept=2, scale=2.5, balance=1e-4),
                    shared=GatedMLP(hidden=16),
                )
            ),
        ),
        Layer(
            ffn=Residual(
                MoE(
                    experts=3,
                    active=2,
                    hidden=16,
                    act="relu",
                    gating=ClampedProduct(limit=0.5, shift=-0.5),
                    bias=True,
                    router=SoftmaxOfTop(bias=True),
                )
            )
        ),
    ),
    "full experts": decoder(
        Layer(ffn=Residual(MoE(experts=2, active=1, hidden=8, gating=Ungated(), router=TopOfSoftmax(capacity=2)))),
        Layer(mix=Residual(attention()), ffn=Residual(MoE(experts=3, active=2, hidden=8, router=FULL))),
    ),
    "latent attention": decoder(
        Layer(mix=Residual(latent()), ffn=Residual(GatedMLP(hidden=48))),
        Layer(mix=Residual(latent(query_latent=10, position=RoPE(theta=100.0, fraction=0.5), sharpness=1.7))),
        Parallel(mix=Residual(latent(latent=5, turned_width=2, position=ALiBi(), norm=CENTRED))),
        Layer(mix=Residual(latent(latent=40, heads=1, key_width=3, position=NoPosition(), norm=NoNorm()))),
    ),
    "recurrent": decoder(
        Layer(mix=Residual(LSTM()), ffn=Residual(GatedMLP(hidden=48))),
        Layer(mix=Residual(GRU(hidden=40))),
        Stacked(mix=Residual(RNN(bias=False), pre=CENTRED), ffn=Residual(RNN(hidden=12, act="relu"))),
        Stacked(mix=Residual(GRU(bias=False), pre=NoNorm(), post=ROOT)),
    ),
    "linear attention": decoder(
        linear(),
        linear(feature=RandomPositive(features=12, seed=3)),
        linear(feature=Plain(), position=RoPE(), decay=FixedDecay(), reading=Gated(norm=UNLEARNT)),
        linear(feature=Plain(), key_heads=2, decay=LowRankDecay(rank=4), reading=Gated(act="gelu"), conv=1),
    ),
    "delta rule": decoder(
        linear(feature=UnitLength(), conv=4, update=Delta(), reading=Normed()),
        linear(feature=UnitLength(), conv=3, update=Delta(most=2.0), decay=HeadDecay(), reading=Gated(), key_heads=2),
        linear(feature=UnitLength(), update=Delta(), decay=LowRankDecay(rank=4), reading=Normed(), key_heads=1),
    ),
    "state spaces": decoder(
        Layer(mix=Residual(Mamba(states=5, rank=3, expand=1, conv=3, act="gelu", bias=True, conv_bias=False))),
        Layer(mix=Residual(Mamba(states=4, rank=2, norm=CENTRED))),
        Layer(mix=Residual(Mamba(states=1, rank=1, conv=1, steps=(0.1, 1.0))), ffn=Residual(GatedMLP(hidden=48))),
        Layer(mix=Residual(Mamba2(heads=6, head_width=5, states=7, groups=3, conv=2, act="relu", bias=True))),
        Layer(mix=Residual(Mamba2(heads=3, head_width=4, states=2, conv_bias=False, eps=0.01, steps=(0.1, 1.0)))),
        Layer(mix=Residual(S4D(states=6, spectrum=LegS(), bias=False)), ffn=Residual(S5(states=12, blocks=3))),
        Layer(mix=Residual(S5(states=2, spectrum=Inv(), act="relu", steps=(0.1, 1.0)))),
        Layer(mix=Residual(S4(states=6, act="relu", bias=False)), ffn=Residual(S4(states=2, steps=(0.1, 1.0)))),
        Layer(mix=Residual(RGLRU(channels=15, heads=3, conv=2, act="relu", decays=(0.1, 0.5)))),
    ),
    "gated convolution": decoder(
        Layer(mix=Residual(GatedConv(taps=4)), ffn=Residual(GatedConv(taps=1, bias=False))),
        Stacked(mix=Residual(GatedConv(taps=3), pre=NoNorm(), post=ROOT)),
    ),
    "rwkv": decoder(
        Layer(mix=Residual(RWKV4(channels=24)), ffn=Residual(ChannelMix(hidden=48))),
        Layer(mix=Residual(RWKV4(channels=32)), ffn=Residual(GatedMLP(hidden=48))),
    ),
    "rwkv, matrices": decoder(
        Layer(mix=Residual(RWKV5(heads=3, head_width=6)), ffn=Residual(ChannelMix(hidden=48))),
        Layer(mix=Residual(RWKV7(heads=2, head_width=8, decay_rank=3, rate_rank=2, gate_rank=4))),
        Layer(
            mix=Residual(RWKV7(heads=2, head_width=8, decay_rank=3, rate_rank=2, gate_rank=4, value_rank=2)),
            ffn=Residual(ShiftedMLP(hidden=48)),
        ),
    ),
    "chunks": decoder(
        Layer(mix=Residual(ChunkedAttention(heads=2, head_width=6, chunk=2))),
        Layer(mix=Residual(ChunkedAttention(heads=3, head_width=4, chunk=3, before=0))),
        Layer(mix=Residual(attention(mask=Chunks(1, before=3)))),
    ),
    "reversible": ReversibleDecoder(
        width=32,
        vocab=VOCAB,
        context=CONTEXT,
        layers=(
            Reversible(
                mix=Residual(ChunkedAttention(heads=2, head_width=6, chunk=2)),
                ffn=Residual(ChunkedMLP(hidden=48, bias=True, tokens=5)),
            ),
            Reversible(
                mix=Residual(attention(), scale=0.5), ffn=Residual(GatedMLP(hidden=24), pre=NoNorm(), post=ROOT)
            ),
        ),
        embed=Embed(position=Axial(shape=(4, 16), widths=(12, 20))),
        head=Untied(bias=True),
    ),
    "hashed": decoder(
        Layer(mix=Residual(HashedAttention(heads=2, head_width=6, factors=(4,), chunk=3))),
        Layer(
            mix=Residual(HashedAttention(heads=2, head_width=4, factors=(2, 4), rounds=2, chunk=4, before=0, seed=3))
        ),
    ),
    "no layers": decoder(),
    "encoder": encoder(
        Layer(
            mix=Residual(
                attention(mask=Everything(), position=NoPosition(), bias=True, out_bias=True), pre=NoNorm(), out=CENTRED
            ),
            ffn=Residual(MLP(hidden=48, bias=True), pre=NoNorm(), out=CENTRED),
        ),
        embed=Embed(position=Learned(CONTEXT), norm=CENTRED, types=2),
        norm=NoNorm(),
        head=Tied(transform=Dense(norm=CENTRED), bias=True),
    ),
    "window and global tokens": encoder(
        Layer(mix=Residual(LocalGlobalAttention(heads=3, head_width=6, reach=2, bias=True))),
        Layer(mix=Residual(LocalGlobalAttention(heads=2, head_width=8, reach=1, leading=3, out_bias=True))),
        Layer(mix=Residual(LocalGlobalAttention(heads=2, head_width=4, reach=30, leading=2))),
    ),
    "graph": encoder(
        Layer(
            mix=Residual(
                attention(kv_heads=4, position=NoPosition(), mask=Graph(edges=RING), score=LeakySum(), out_bias=True)
            )
        ),
        Layer(mix=Residual(attention(mask=Graph(edges=((2, 0), (0, 9), (5, 1)))))),
    ),
    "additive": decoder(
        Layer(mix=Residual(attention(score=LeakySum(slope=0.0), mask=Window(5)))),
        Layer(mix=Residual(attention(score=LeakySum(), position=ALiBi()))),
    ),
    "sums": encoder(
        Layer(mix=Residual(LowRankAttention(heads=2, head_width=6, rank=3, length=CONTEXT, bias=True))),
        Layer(mix=Residual(LowRankAttention(heads=3, head_width=4, rank=CONTEXT, length=CONTEXT, out_bias=True))),
    ),
    "blocks": encoder(
        Layer(
            mix=Residual(
                BlockSparseAttention(heads=3, head_width=6, block=1, length=CONTEXT, further=DrawnBlocks(count=1))
            )
        ),
        Layer(
            mix=Residual(
                BlockSparseAttention(
                    heads=2, head_width=4, block=1, length=CONTEXT, further=FirstBlock(count=2), bias=True
                )
            )
        ),
        Layer(
            mix=Residual(
                BlockSparseAttention(
                    heads=2, head_width=4, block=2, length=CONTEXT, further=DrawnBlocks(count=0), out_bias=True
                )
            )
        ),
    ),
    "pair": EncoderDecoder(
        encoder=encoder(
            Layer(mix=Residual(attention(mask=Everything(), position=SharedBias())), ffn=Residual(MLP(hidden=48))),
            embed=Embed(position=RelativeBias(heads=4, buckets=8, distance=9, both_ways=True)),
            head=NoHead(),
        ),
        decoder=decoder(
            Layer(
                mix=Residual(attention(position=SharedBias())),
                cross=Residual(CrossAttention(heads=4, kv_heads=2, head_width=8)),
                ffn=Residual(MLP(hidden=48)),
            ),
            embed=Embed(position=RelativeBias(heads=4, buckets=6, distance=7)),
            head=Tied(width_power=-0.5),
        ),
    ),
    "pair of recurrences": EncoderDecoder(
        encoder=encoder(
            Stacked(mix=Residual(BothWays(GRU(hidden=20)), pre=NoNorm())),
            Layer(mix=Residual(BothWays(LSTM()))),
            head=NoHead(),
        ),
        decoder=decoder(
            Layer(cross=Residual(Summary(), pre=NoNorm())),
            Stacked(mix=Residual(LSTM(), pre=NoNorm()), cross=Residual(Aligned(), pre=NoNorm())),
            Layer(cross=Residual(Aligned(align=General()))),
            Layer(cross=Residual(Aligned(align=Additive(hidden=12)))),
            Stacked(cross=Residual(AttentiveGRU(hidden=20, align=Additive(hidden=24)))),
        ),
    ),
    "pair of two vocabularies": EncoderDecoder(
        encoder=encoder(Layer(mix=Residual(attention(mask=Everything()))), head=NoHead()).replace(vocab=VOCAB + 3),
        decoder=decoder(
            Parallel(
                mix=Residual(attention(mask=Window(5))),
                cross=Residual(CrossAttention(heads=2, kv_heads=2, head_width=6, score=Sink(), bias=True)),
            ),
            Layer(cross=Residual(CrossAttention(heads=1, kv_heads=1, head_width=8, out_bias=True), scale=0.5)),
        ),
        shared=False,
        start=5,
    ),
    "encoder both ways": encoder(Layer(mix=Residual(BothWays(LSTM(hidden=20))), ffn=Residual(GatedMLP(hidden=48)))),
    "rotating encoder": encoder(
        Layer(mix=Residual(attention(mask=Everything(), norm=ROOT)), ffn=Residual(GatedMLP(hidden=48))),
        Layer(ffn=Residual(MoE(experts=3, active=2, hidden=8, router=FULL))),
        Layer(mix=Residual(attention(mask=Everything(), score=Capped(cap=0.5)))),
        Layer(mix=Residual(attention(mask=Near(2)))),
        head=Untied(transform=Dense(act="silu", norm=NoNorm(), bias=False)),
    ),
}

with signatures.unchecked():  # which would take ten times as long, in every process of the tests
    SHRUNK: dict[str, Model] = {name: shrink(make()) for name, make in PRESETS.items()}

_PRESET_OF = {spec: name for name, spec in reversed(SHRUNK.items())}  # presets that are alike when small run once

EXAMPLES: dict[str, Model] = HAND_MADE | {name: spec for spec, name in _PRESET_OF.items()}


def steady(spec: Decoder) -> bool:
    """Returns whether pieces give what the whole does, as every mixer says of itself."""
    return all(part.mixer.steady for layer in spec.layers for part in layer.parts.values())


# Those that can be read in pieces, and show nothing before it is read.
DECODERS: dict[str, Decoder] = {
    name: spec for name, spec in EXAMPLES.items() if isinstance(spec, Decoder) and steady(spec)
}
ENCODERS: dict[str, Encoder] = {name: spec for name, spec in EXAMPLES.items() if isinstance(spec, Encoder)}
PAIRS: dict[str, EncoderDecoder] = {name: spec for name, spec in EXAMPLES.items() if isinstance(spec, EncoderDecoder)}
STACKS: dict[str, Stack] = {name: spec for name, spec in EXAMPLES.items() if isinstance(spec, Stack)}


def registered_kinds() -> Iterator[str]:
    """Yields every kind of spec that describes a module or a part of one, whether or not anything imports its file."""
    packages = (groundup.parts, groundup.mixers, groundup.model)
    for package in packages:
        for module in iter_modules(package.__path__, f"{package.__name__}."):
            import_module(module.name)
    names = tuple(f"{package.__name__}." for package in packages)
    yield from (name for name, kind in Spec.kinds.items() if kind.__module__.startswith(names))


@cache
def lively(spec: Model, dtype: torch.dtype = torch.float64) -> Any:
    """Returns the model with every weight moved, norms and biases too, so that none has a value that hides a fault."""
    model = spec.build().to(dtype).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(dtype), alpha=0.2)
    return model


def read(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Returns what a model makes of ids; an encoder-decoder of the ids after the same ids backwards."""
    return model(ids, source=ids.flip(1)) if isinstance(model.spec, EncoderDecoder) else model(ids)


def some_ids(rows: int, tokens: int, *, seed: int = 0) -> torch.Tensor:
    """Returns token ids (rows, tokens), the same for the same arguments."""
    return torch.randint(VOCAB, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def assert_same(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Fails unless two results of the same mathematics in float64 are equal."""
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
