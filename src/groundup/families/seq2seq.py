"""Recurrent encoder-decoders for translation, with attention as it was first.

The sizes of Bahdanau et al. 2015 (arXiv:1409.0473), appendix A: words of 620, gated units of 1,000, both ways in the
encoder, an additive network of 1,000, 30,000 words of each language; and of Luong et al. 2015 (arXiv:1508.04025),
section 4.1: four layers of LSTMs of 1,000 cells, as wide as the words, 50,000 words of each language. Here a linear map
brings the units back to the width of the words. Left out are what `groundup.mixers.aligned` leaves out, and Luong's
handing on of the encoder's last state: the attention alone tells the decoder of the source.
"""

from __future__ import annotations

from functools import partial

from groundup.families.family import Family
from groundup.mixers.aligned import Aligned, AttentiveGRU
from groundup.mixers.both_ways import BothWays
from groundup.mixers.recurrent import GRU, LSTM
from groundup.model.decoder import Decoder
from groundup.model.encoder import Encoder
from groundup.model.encoder_decoder import EncoderDecoder
from groundup.model.heads import NoHead, Untied
from groundup.model.layer import LayerSpec, Stacked
from groundup.model.residual import Residual
from groundup.parts.align import Additive, Align, General
from groundup.parts.init import FanIn
from groundup.parts.norm import NoNorm

bare = partial(Residual, pre=NoNorm())


def seq2seq(
    *, encoder: tuple[LayerSpec, ...], decoder: tuple[LayerSpec, ...], width: int, vocab: int, context: int = 50
) -> EncoderDecoder:
    """Returns the spec of a recurrent encoder-decoder.

    Args:
        encoder: its layers.
        decoder: its layers.
        width: of the words and of what stands between layers.
        vocab: the number of token ids of each language.
        context: the longest text that it was trained on.
    """
    common = {"width": width, "vocab": vocab, "context": context, "norm": NoNorm(), "init": FanIn()}
    return EncoderDecoder(
        encoder=Encoder(layers=encoder, head=NoHead(), **common),
        decoder=Decoder(layers=decoder, head=Untied(bias=True), **common),
        shared=False,
    )


def bahdanau(
    *, width: int = 620, hidden: int = 1000, align_hidden: int = 1000, vocab: int = 30_000, context: int = 50
) -> EncoderDecoder:
    """Returns the spec of RNNsearch: gated units that look into what others read both ways.

    Args:
        width: of the words.
        hidden: the gated units of each direction and of the decoder.
        align_hidden: the width of the additive network.
        vocab: the number of token ids of each language.
        context: the longest text that it was trained on.
    """
    return seq2seq(
        encoder=(Stacked(mix=bare(BothWays(GRU(hidden=hidden)))),),
        decoder=(Stacked(cross=bare(AttentiveGRU(hidden=hidden, align=Additive(hidden=align_hidden)))),),
        width=width,
        vocab=vocab,
        context=context,
    )


def luong(
    *,
    width: int = 1000,
    layers: int = 4,
    align: Align = General(),  # noqa: B008 - a spec is a value
    vocab: int = 50_000,
    context: int = 50,
) -> EncoderDecoder:
    """Returns the spec of stacked LSTMs with global attention on top.

    Args:
        width: of the words and of every layer.
        layers: of the encoder, and of the decoder.
        align: how the decoder's outputs and the encoder's fit.
        vocab: the number of token ids of each language.
        context: the longest text that it was trained on.
    """
    stacked = (Stacked(mix=bare(LSTM())),) * layers
    top = Stacked(cross=bare(Aligned(align=align)))
    return seq2seq(encoder=stacked, decoder=(*stacked, top), width=width, vocab=vocab, context=context)


PRESETS = {"seq2seq-bahdanau": bahdanau, "seq2seq-luong": luong}

FAMILY = Family(name="seq2seq", presets=PRESETS, kind=EncoderDecoder)
