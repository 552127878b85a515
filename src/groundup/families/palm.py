"""PaLM: parallel layers that share one norm, one head of keys, SwiGLU, no biases, a tied and scaled head.

Source: Chowdhery et al. 2022 (arXiv:2204.02311), section 2 and table 1; how weights start and the head's scale,
section 5. Layers are as wide as the table says and heads 256 wide, so that those of 540B do not fill its stream. The
published totals leave out the weights of norms. The model's own were not published; transformers has no class for it.
"""

from __future__ import annotations

from functools import partial

from groundup.families.family import Family
from groundup.mixers.attention import Attention
from groundup.mixers.mlp import GatedMLP
from groundup.model.decoder import Decoder
from groundup.model.heads import Tied
from groundup.model.layer import Parallel
from groundup.model.residual import Residual
from groundup.parts.init import FanIn
from groundup.parts.norm import LayerNorm, NoNorm, Norm


def palm(
    *,
    width: int,
    layers: int,
    heads: int,
    head_width: int = 256,
    vocab: int = 256_000,
    context: int = 2048,
    norm: Norm = LayerNorm(bias=False),  # noqa: B008 - a spec is a value
) -> Decoder:
    """Returns the spec of a PaLM of these sizes.

    Args:
        width: the width of the residual stream.
        layers: the number of layers.
        heads: heads of queries.
        head_width: the width of a head.
        vocab: the number of token ids.
        context: the longest sequence.
        norm: of each layer and before the head.
    """
    attention = Attention(heads=heads, kv_heads=1, head_width=head_width)
    layer = Parallel(
        mix=Residual(attention, pre=NoNorm()), ffn=Residual(GatedMLP(hidden=4 * width), pre=NoNorm()), pre=norm
    )
    return Decoder(
        width=width,
        vocab=vocab,
        context=context,
        layers=(layer,) * layers,
        norm=norm,
        head=Tied(width_power=-0.5),
        init=FanIn(),
    )


PRESETS = {
    "palm-8b": partial(palm, width=4096, layers=32, heads=16),
    "palm-62b": partial(palm, width=8192, layers=64, heads=32),
    "palm-540b": partial(palm, width=18432, layers=118, heads=48),
}

FAMILY = Family(name="palm", presets=PRESETS)
