"""RWKV-7 (Goose): RWKV with the generalised delta rule.

Source: Peng et al. 2025 (arXiv:2503.14456), section 4 and its table of sizes; github.com/BlinkDL/RWKV-LM. transformers
has no class for it. Published files hold a map that mixes values in the first layer too, which is not used: of the
450,834,432 parameters of the second size, 66,560 are these.
"""

from __future__ import annotations

from functools import partial

from groundup.families.family import Family
from groundup.mixers.rwkv7 import RWKV7, ShiftedMLP
from groundup.model.decoder import Decoder
from groundup.model.layer import Layer
from groundup.model.residual import Residual
from groundup.parts.embed import Embed
from groundup.parts.norm import LayerNorm


def rwkv7(
    *, width: int, layers: int, ranks: tuple[int, int, int, int], vocab: int = 65536, context: int = 4096
) -> Decoder:
    """Returns the spec of an RWKV-7 of these sizes, with heads of 64.

    Args:
        width: the width of the residual stream.
        layers: the number of layers.
        ranks: of the maps of decays, rates, values and gates.
        vocab: the number of token ids.
        context: the tokens it was trained to read; it reads on beyond them.
    """
    norm = LayerNorm()
    decay, rate, value, gate = ranks
    first = RWKV7(heads=width // 64, head_width=64, decay_rank=decay, rate_rank=rate, gate_rank=gate)
    mixers = (first, *(first.replace(value_rank=value),) * (layers - 1))
    ffn = Residual(ShiftedMLP(hidden=4 * width), pre=norm)
    return Decoder(
        width=width,
        vocab=vocab,
        context=context,
        layers=tuple(Layer(mix=Residual(mixer, pre=norm), ffn=ffn) for mixer in mixers),
        embed=Embed(norm=norm),
        norm=norm,
    )


PRESETS = {
    "rwkv-7-0.1b": partial(rwkv7, width=768, layers=12, ranks=(64, 64, 32, 128)),
    "rwkv-7-0.4b": partial(rwkv7, width=1024, layers=24, ranks=(64, 64, 32, 128)),
    "rwkv-7-1.5b": partial(rwkv7, width=2048, layers=24, ranks=(96, 96, 64, 256)),
    "rwkv-7-2.9b": partial(rwkv7, width=2560, layers=32, ranks=(96, 96, 64, 320)),
}

FAMILY = Family(name="rwkv7", presets=PRESETS)
