"""RWKV-5 (Eagle): RWKV with a matrix for each head.

Source: Peng et al. 2024 (arXiv:2404.05892), table 3 and section 4. transformers has no class for it.
"""

from __future__ import annotations

from functools import partial

from groundup.families.family import Family
from groundup.mixers.rwkv import ChannelMix
from groundup.mixers.rwkv5 import RWKV5
from groundup.model.decoder import Decoder
from groundup.model.layer import Layer
from groundup.model.residual import Residual
from groundup.parts.embed import Embed
from groundup.parts.norm import LayerNorm


def rwkv5(*, width: int, layers: int, vocab: int = 65536, context: int = 4096) -> Decoder:
    """Returns the spec of an RWKV-5 of these sizes, with heads of 64.

    Args:
        width: the width of the residual stream.
        layers: the number of layers.
        vocab: the number of token ids.
        context: the tokens it was trained to read; it reads on beyond them.
    """
    norm = LayerNorm()
    layer = Layer(
        mix=Residual(RWKV5(heads=width // 64, head_width=64), pre=norm),
        ffn=Residual(ChannelMix(hidden=width * 7 // 2), pre=norm),
    )
    return Decoder(
        width=width, vocab=vocab, context=context, layers=(layer,) * layers, embed=Embed(norm=norm), norm=norm
    )


PRESETS = {
    "rwkv-5-0.4b": partial(rwkv5, width=1024, layers=24),
    "rwkv-5-1.5b": partial(rwkv5, width=2048, layers=24),
    "rwkv-5-3b": partial(rwkv5, width=2560, layers=32),
    "rwkv-5-7b": partial(rwkv5, width=4096, layers=32),
}

FAMILY = Family(name="rwkv5", presets=PRESETS)
