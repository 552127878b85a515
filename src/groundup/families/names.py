"""Tables of a configuration's names, from which families of GPT's kind both read and write it.

A table says, for each argument of a family's function, the keys of the configuration that say it, and last what it is
where none does. The first key is the one that is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from groundup.families.family import ACTS, THEIR_ACTS, Keys
from groundup.mixers.attention import Attention
from groundup.mixers.mlp import MLP
from groundup.model.decoder import Decoder
from groundup.model.heads import Tied
from groundup.model.layer import LayerSpec
from groundup.model.residual import Residual
from groundup.parts.init import ScaledNormal
from groundup.parts.norm import LayerNorm

Names = Mapping[str, tuple[Any, ...]]

FRACTIONS = ("eps", "deviation", "embed_dropout", "dropout", "attention_dropout")
READERS: dict[str, Callable[..., Any]] = {  # the other arguments are whole numbers
    "layers": Keys.layers,
    "act": partial(Keys.choice, known=ACTS),
    **dict.fromkeys(("bias", "tied"), Keys.flag),
    **dict.fromkeys(FRACTIONS, partial(Keys.number, whole=False)),
}


def read_named(keys: Keys, names: Names) -> dict[str, Any]:
    """Returns the arguments that a configuration says by these names."""
    return {x: READERS.get(x, Keys.number)(keys, *theirs, default=usual) for x, (*theirs, usual) in names.items()}


def write_named(spec: Decoder, names: Names, **more: Any) -> dict[str, Any] | None:
    """Returns the configuration of a decoder in these names, with more; None where it is not of attention and MLPs."""
    match spec:
        case Decoder(
            layers=(
                LayerSpec(mix=Residual(mixer=Attention() as attention) as mix, ffn=Residual(mixer=MLP() as mlp)),
                *_,
            ),
            init=ScaledNormal(deviation=deviation),
        ) if mlp.act in THEIR_ACTS:
            usual = names.get("act", ("",))[-1]  # of two names of one activation, the published one
            said = {
                "width": spec.width,
                "layers": len(spec.layers),
                "heads": attention.heads,
                "kv_heads": attention.kv_heads,
                "hidden": mlp.hidden,
                "vocab": spec.vocab,
                "context": spec.context,
                "act": usual if ACTS.get(usual) == mlp.act else THEIR_ACTS[mlp.act],
                "eps": spec.norm.eps if isinstance(spec.norm, LayerNorm) else None,
                "bias": attention.bias,
                "tied": isinstance(spec.head, Tied),
                "deviation": deviation,
                "embed_dropout": spec.embed.dropout,
                "dropout": mix.dropout,
                "attention_dropout": attention.dropout,
            }
            return {theirs[0]: said[x] for x, theirs in names.items()} | more
    return None
