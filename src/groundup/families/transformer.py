"""The Transformer as it was first: post-norm layers, waves for places, one table for both texts and for the head.

Source: Vaswani et al. 2017 (arXiv:1706.03762), sections 3 and 5.1 and table 3, whose 65 and 213 million parameters are
rounded from a vocabulary of "about 37,000". It does not say the longest text; waves reach any. Tokens 0 and 1 stand
before and after a text as in its authors' tensor2tensor; transformers has no class for it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from groundup.families.family import Family, head_width
from groundup.mixers.attention import Attention
from groundup.mixers.cross import CrossAttention
from groundup.mixers.mlp import MLP
from groundup.model.decoder import Decoder
from groundup.model.encoder import Encoder
from groundup.model.encoder_decoder import EncoderDecoder
from groundup.model.heads import Head, NoHead, Tied
from groundup.model.layer import Layer
from groundup.model.residual import Residual
from groundup.parts.embed import Embed
from groundup.parts.init import ScaledNormal
from groundup.parts.mask import Causal, Everything
from groundup.parts.norm import LayerNorm, NoNorm
from groundup.parts.position import NoPosition, Sinusoidal


def transformer(
    *,
    width: int,
    layers: tuple[int, int],
    heads: tuple[int, int],
    hidden: tuple[int, int],
    vocab: int,
    context: int,
    act: str = "relu",
    embed: Embed = Embed(width_power=0.5, position=Sinusoidal()),  # noqa: B008 - a spec is a value
    head: Head = Tied(),  # noqa: B008
    deviation: float | None = None,
    dropout: tuple[float, float] = (0.0, 0.0),
    **frame: Any,
) -> EncoderDecoder:
    """Returns the spec of a post-norm encoder-decoder of these sizes; pairs are those of the encoder and the decoder.

    Args:
        width: the width of the residual stream.
        layers: the numbers of layers.
        heads: heads of attention, each ``width / heads`` wide.
        hidden: the widths inside the feed-forward parts.
        vocab: the number of token ids.
        context: the longest text.
        act: the activation of the feed-forward parts.
        embed: how token ids become vectors, on both sides.
        head: what makes logits.
        deviation: of the first weights; None means that tables start with scaled vectors of size one.
        dropout: of what goes into the stream, and of attention weights.
        frame: the tokens around targets, as `groundup.model.encoder_decoder.EncoderDecoder` has them.

    Raises:
        SpecError: a number of heads does not divide ``width``.
    """
    of_stream, of_attention = dropout
    part = partial(Residual, pre=NoNorm(), out=LayerNorm(), dropout=of_stream)
    biased = {"bias": True, "out_bias": True, "dropout": of_attention}
    sizes = [{"heads": n, "kv_heads": n, "head_width": head_width(width, n), **biased} for n in heads]
    ffns = [part(MLP(hidden=inside, act=act, bias=True)) for inside in hidden]
    see = partial(Attention, position=NoPosition())
    read = Layer(mix=part(see(mask=Everything(), **sizes[0])), ffn=ffns[0])
    written = Layer(mix=part(see(mask=Causal(), **sizes[1])), cross=part(CrossAttention(**sizes[1])), ffn=ffns[1])
    common = {
        "width": width,
        "vocab": vocab,
        "context": context,
        "embed": embed.replace(dropout=of_stream),
        "norm": NoNorm(),
        "init": ScaledNormal(deviation=width**-0.5 if deviation is None else deviation),
    }
    return EncoderDecoder(
        encoder=Encoder(layers=(read,) * layers[0], head=NoHead(), **common),
        decoder=Decoder(layers=(written,) * layers[1], head=head, **common),
        **frame,
    )


original = partial(transformer, layers=(6, 6), vocab=37000, context=1024, start=0, end=1)

PRESETS = {
    "transformer-base": partial(original, width=512, heads=(8, 8), hidden=(2048, 2048)),
    "transformer-big": partial(original, width=1024, heads=(16, 16), hidden=(4096, 4096)),
}

FAMILY = Family(name="transformer", presets=PRESETS, kind=EncoderDecoder)
