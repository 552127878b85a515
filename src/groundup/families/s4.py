"""S4, S4D and S5 as language models: layers of a linear state space and a feed-forward part, of sizes that we chose.

Nobody published weights of language models of these kinds. The shape is that of S4's model of WikiText-103 (Gu et al.
2021, arXiv:2111.00396, section 4.3 and appendix D.3: 16 layers of width 1024, feed-forward parts of 4096), whose
vocabulary of words and adaptive softmax we have not: the vocabulary is GPT-2's, and the names say our own counts.
"""

from __future__ import annotations

from functools import partial

from groundup.families.family import Family
from groundup.families.linear_attention import stacked
from groundup.mixers.base import MixerSpec
from groundup.mixers.mlp import MLP
from groundup.mixers.s4 import S4, S4D
from groundup.mixers.s5 import S5
from groundup.model.decoder import Decoder
from groundup.parts.norm import LayerNorm
from groundup.parts.spectrum import Inv, Lin


def state_space(mixer: MixerSpec, *, width: int, layers: int) -> Decoder:
    """Returns the spec of a language model with this mixer."""
    ffn = MLP(hidden=4 * width, bias=True)
    sizes = {"width": width, "layers": layers, "vocab": 50_257, "context": 1024}
    return stacked(mixer, ffn, norm=LayerNorm(), tied=True, **sizes)


make = partial(state_space, width=1024, layers=16)

PRESETS = {
    "s4-224m": partial(make, S4()),
    "s4d-lin-222m": partial(make, S4D(spectrum=Lin())),
    "s4d-inv-222m": partial(make, S4D(spectrum=Inv())),
    "s5-236m": partial(make, S5(states=1024, blocks=16)),
}

FAMILY = Family(name="s4", presets=PRESETS)
