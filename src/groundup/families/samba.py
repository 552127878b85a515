"""Samba: layers of Mamba and of attention to a window in turn, each with a feed-forward part.

Source: Ren et al. 2024 (arXiv:2406.07522), section 2; the paper counts a mixer and its feed-forward part as two layers.
Sizes are those of the authors' code (github.com/microsoft/Samba, lit_gpt/config.py), which has two of the paper's four.
"""

from __future__ import annotations

import math
from functools import partial

from groundup.families.family import Family, head_width
from groundup.mixers.attention import Attention
from groundup.mixers.mamba import Mamba
from groundup.mixers.mlp import GatedMLP
from groundup.model.decoder import Decoder
from groundup.model.heads import Tied
from groundup.model.layer import Layer, pattern
from groundup.model.residual import Residual
from groundup.parts.mask import Window
from groundup.parts.norm import RMSNorm


def samba(*, width: int, layers: int, heads: int, hidden: int) -> Decoder:
    """Returns the spec of a Samba of these sizes.

    Args:
        width: the width of the residual stream.
        layers: the number of layers, every second of which has attention.
        heads: heads of queries, each ``width / heads`` wide.
        hidden: the width inside the feed-forward parts.
    """
    norm = RMSNorm(eps=1e-5)
    attention = Attention(heads=heads, kv_heads=heads, head_width=head_width(width, heads), mask=Window(2048))
    mixers = (Mamba(states=16, rank=math.ceil(width / 16)), attention)
    ffn = Residual(GatedMLP(hidden=hidden), pre=norm)
    return Decoder(
        width=width,
        vocab=32000,
        context=4096,
        layers=pattern([Layer(mix=Residual(mixer, pre=norm), ffn=ffn) for mixer in mixers], of=layers),
        norm=norm,
        head=Tied(),
    )


PRESETS = {
    "samba-421m": partial(samba, width=1536, layers=12, heads=12, hidden=4096),
    "samba-1.3b": partial(samba, width=2304, layers=18, heads=18, hidden=6144),
}

FAMILY = Family(name="samba", presets=PRESETS)
