"""Stacked LSTMs without residuals, as language models were before Transformers.

The sizes of Zaremba et al. 2014 (arXiv:1409.2329), section 4.1: two layers, 10,000 words of the Penn Treebank, as wide
as their embeddings, a head of its own with a bias. The small size is that of their published code. Their LSTM has one
bias a gate, as here; PyTorch's has two, of which only the sum counts. Dropout, by size 0, 0.5 and 0.65, stands after
the embedding and after each layer. First weights are normal by the width of their inputs; theirs, even between ±0.1,
±0.05 and ±0.04, have nearly the same spread in the layers.
"""

from __future__ import annotations

from functools import partial

from groundup.families.family import Family
from groundup.mixers.recurrent import LSTM
from groundup.model.decoder import Decoder
from groundup.model.heads import Untied
from groundup.model.layer import Stacked
from groundup.model.residual import Residual
from groundup.parts.embed import Embed
from groundup.parts.init import FanIn
from groundup.parts.norm import NoNorm


def lstm(*, width: int, layers: int = 2, vocab: int = 10_000, context: int = 35, dropout: float = 0.0) -> Decoder:
    """Returns the spec of a stack of LSTMs.

    Args:
        width: of the embedding and of every layer.
        layers: the number of layers.
        vocab: the number of token ids.
        context: the tokens over which gradients flow in training; the state goes on beyond them.
        dropout: the chance of each value between layers to be dropped in training.
    """
    layer = Stacked(mix=Residual(LSTM(), pre=NoNorm(), dropout=dropout))
    return Decoder(
        width=width,
        vocab=vocab,
        context=context,
        layers=(layer,) * layers,
        embed=Embed(dropout=dropout),
        norm=NoNorm(),
        head=Untied(bias=True),
        init=FanIn(),
    )


PRESETS = {
    "lstm-zaremba-small": partial(lstm, width=200, context=20),
    "lstm-zaremba-medium": partial(lstm, width=650),
    "lstm-zaremba-large": partial(lstm, width=1500),
}

FAMILY = Family(name="recurrent", presets=PRESETS)
