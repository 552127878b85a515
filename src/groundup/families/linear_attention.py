"""Linear Transformers, Performer, RetNet, GLA, DeltaNet and Gated DeltaNet: linear attention and a feed-forward part.

Sources. RetNet: Sun et al. 2023 (arXiv:2307.08621), section 3.1: widths and layers of its table, heads of 256, values
and the feed-forward part twice the width, decays from 1 - 1/32 to 1 - 1/512 in every size; the paper does not name its
vocabulary, which is GPT-2's here. GLA: Yang et al. 2023 (arXiv:2312.06635), section 5, and the configurations of
flash-linear-attention (github.com/fla-org/flash-linear-attention, training/configs). DeltaNet: Yang et al. 2024
(arXiv:2406.06484), Gated DeltaNet: Yang et al. 2024 (arXiv:2412.06464), both as the defaults of their configurations
there. All but RetNet have the 32,000 tokens of Mistral and a SwiGLU of 8/3 of the width, in multiples of 256.
Linear Transformers: Katharopoulos et al. 2020 (arXiv:2006.16236), sections 4.2.1 and 4.2.2, which write images by their
256 intensities, here with a softmax over them instead of a mixture of logistics. Performer: Choromanski et al. 2020
(arXiv:2009.14794), section 4: 8 heads, 6 layers, 2048 and 512 wide, with 256 features; the vocabulary is that of its
PG-19 and the context is ours, and so are the learnt positions of both.
"""

from __future__ import annotations

from functools import partial

from groundup.families.family import Family, head_width
from groundup.mixers.base import MixerSpec
from groundup.mixers.linear_attention import LinearAttention
from groundup.mixers.mlp import MLP, GatedMLP
from groundup.model.decoder import Decoder
from groundup.model.heads import Tied, Untied
from groundup.model.layer import Layer
from groundup.model.residual import Residual
from groundup.parts.decay import FixedDecay, HeadDecay, LowRankDecay
from groundup.parts.embed import Embed
from groundup.parts.feature import EluPlusOne, Feature, Plain, RandomPositive, UnitLength
from groundup.parts.norm import LayerNorm, Norm, RMSNorm
from groundup.parts.position import Learned, RoPE
from groundup.parts.reading import Gated, Normed
from groundup.parts.update import Delta


def retention(*, width: int, head_width: int = 256) -> LinearAttention:
    """Returns RetNet's mixer: fixed decays, turned queries and keys, values of twice their width.

    Args:
        width: the width of the residual stream.
        head_width: the width of a query or key.
    """
    return LinearAttention(
        heads=width // head_width,
        key_heads=width // head_width,
        key_width=head_width,
        value_width=2 * head_width,
        feature=Plain(),
        position=RoPE(),
        decay=FixedDecay(last=9.0),
        reading=Gated(norm=LayerNorm(bias=False, weight=False)),
    )


def gated(*, width: int, heads: int = 4) -> LinearAttention:
    """Returns GLA's mixer: decays of every key value, keys half as wide as values.

    Args:
        width: the width of the residual stream, and of the values of all heads.
        heads: the number of heads.
    """
    return LinearAttention(
        heads=heads,
        key_heads=heads,
        key_width=width // heads // 2,
        value_width=width // heads,
        feature=Plain(),
        decay=LowRankDecay(),
        reading=Gated(norm=RMSNorm(eps=1e-5)),
    )


def delta(*, width: int, heads: int) -> LinearAttention:
    """Returns DeltaNet's mixer.

    Args:
        width: the width of the residual stream, and of the keys and values of all heads.
        heads: the number of heads.
    """
    return LinearAttention(
        heads=heads,
        key_heads=heads,
        key_width=width // heads,
        value_width=width // heads,
        feature=UnitLength(),
        update=Delta(),
        reading=Normed(norm=RMSNorm(eps=1e-5)),
        conv=4,
    )


def gated_delta(
    *,
    heads: int,
    key_width: int,
    value_width: int,
    key_heads: int | None = None,
    most: float = 1.0,
    decay: HeadDecay | None = None,
    conv: int = 4,
    eps: float = 1e-5,
) -> LinearAttention:
    """Returns Gated DeltaNet's mixer.

    Args:
        heads: the number of heads of values.
        key_width: the width of a query or key.
        value_width: the width of a value.
        key_heads: the number of heads of queries and keys; None means as many.
        most: the largest part of what is under a key that a token replaces.
        decay: the decay; None means the default.
        conv: the tokens that the short convolution sees.
        eps: of the norm of the heads.
    """
    return LinearAttention(
        heads=heads,
        key_heads=key_heads or heads,
        key_width=key_width,
        value_width=value_width,
        feature=UnitLength(),
        decay=decay or HeadDecay(),
        update=Delta(most=most),
        reading=Gated(norm=RMSNorm(eps=eps)),
        conv=conv,
    )


def stacked(
    mixer: MixerSpec,
    ffn: MixerSpec,
    *,
    width: int,
    layers: int,
    vocab: int = 32_000,
    context: int = 2048,
    norm: Norm | None = None,
    tied: bool = False,
) -> Decoder:
    """Returns the spec of a model of equal layers.

    Args:
        mixer: the mixer of a layer.
        ffn: its feed-forward part.
        width: the width of the residual stream.
        layers: the number of layers.
        vocab: the number of token ids.
        context: the longest sequence that is meant.
        norm: all norms of the stream; None means RMSNorm.
        tied: whether the head reads the token embedding.
    """
    norm = norm or RMSNorm()
    return Decoder(
        width=width,
        vocab=vocab,
        context=context,
        layers=(Layer(mix=Residual(mixer, pre=norm), ffn=Residual(ffn, pre=norm)),) * layers,
        norm=norm,
        head=Tied() if tied else Untied(),
    )


def retnet(*, width: int, layers: int) -> Decoder:
    """Returns the spec of a RetNet of these sizes."""
    sizes = {"width": width, "layers": layers, "vocab": 50_257}
    return stacked(retention(width=width), MLP(hidden=2 * width), norm=LayerNorm(), tied=True, **sizes)


def gla(*, width: int, layers: int, tied: bool) -> Decoder:
    """Returns the spec of a GLA of these sizes."""
    return stacked(gated(width=width), swiglu(width), width=width, layers=layers, tied=tied)


def delta_net(*, width: int, layers: int, heads: int) -> Decoder:
    """Returns the spec of a DeltaNet of these sizes."""
    return stacked(delta(width=width, heads=heads), swiglu(width), width=width, layers=layers)


def gated_delta_net(*, width: int, layers: int, heads: int, key_width: int) -> Decoder:
    """Returns the spec of a Gated DeltaNet of these sizes, whose values are twice as wide as its keys."""
    mixer = gated_delta(heads=heads, key_width=key_width, value_width=2 * key_width)
    return stacked(mixer, swiglu(width), width=width, layers=layers)


def featured(
    feature: Feature, *, width: int, layers: int, heads: int, hidden: int, vocab: int, context: int
) -> Decoder:
    """Returns the spec of a Transformer whose softmax is replaced by features of queries and keys.

    Args:
        feature: what queries and keys become.
        width: the width of the residual stream.
        layers: the number of layers.
        heads: the number of heads, each ``width / heads`` wide.
        hidden: the width inside the feed-forward part.
        vocab: the number of token ids.
        context: the number of learnt positions.
    """
    each = head_width(width, heads)
    mixer = LinearAttention(heads=heads, key_heads=heads, key_width=each, value_width=each, feature=feature)
    sizes = {"width": width, "layers": layers, "vocab": vocab, "context": context}
    spec = stacked(mixer, MLP(hidden=hidden, bias=True), norm=LayerNorm(), **sizes)
    return spec.replace(embed=Embed(position=Learned(context)))


def swiglu(width: int) -> GatedMLP:
    """Returns a SwiGLU of 8/3 of the width, in multiples of 256."""
    return GatedMLP(hidden=-(-(width * 8 // 3) // 256) * 256)


image = partial(featured, EluPlusOne(), width=256, heads=8, hidden=1024, vocab=256)

PRESETS = {
    "linear-transformer-mnist": partial(image, layers=8, context=784),
    "linear-transformer-cifar10": partial(image, layers=16, context=3072),
    "performer-regular": partial(
        featured, RandomPositive(), width=512, layers=6, heads=8, hidden=2048, vocab=32_768, context=8192
    ),
    "retnet-1.3b": partial(retnet, width=2048, layers=24),
    "retnet-2.7b": partial(retnet, width=2560, layers=32),
    "retnet-6.7b": partial(retnet, width=4096, layers=32),
    "gla-340m": partial(gla, width=1024, layers=24, tied=True),
    "gla-1.3b": partial(gla, width=2048, layers=24, tied=False),
    "delta-net-340m": partial(delta_net, width=1024, layers=24, heads=8),
    "delta-net-1.3b": partial(delta_net, width=2048, layers=24, heads=16),
    "gated-deltanet-1.3b": partial(gated_delta_net, width=2048, layers=21, heads=6, key_width=256),
}

FAMILY = Family(name="linear_attention", presets=PRESETS)
