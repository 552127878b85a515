"""Mamba-2: Mamba's layers with heads of states that have one decay each, and a norm after the gate.

Source: Dao and Gu 2024 (arXiv:2405.21060), section 9.2; sizes as in state-spaces/mamba2-*: heads of 64, 128 states, one
group, GPT-NeoX's 50,277 tokens padded to 50,288.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from groundup.errors import SpecError
from groundup.families.family import THEIR_ACTS, Family, Keys
from groundup.families.mamba import CONTEXT, around, read_settings, stacked, state_space_rules, write_settings
from groundup.mixers.mamba2 import Mamba2
from groundup.model.decoder import Decoder
from groundup.model.layer import Layer
from groundup.model.residual import Residual
from groundup.parts.init import ScaledNormal
from groundup.parts.norm import RMSNorm
from groundup.rules import Rule, split_sizes


def mamba2(
    *,
    width: int,
    layers: int,
    heads: int | None = None,
    head_width: int = 64,
    states: int = 128,
    vocab: int = 50288,
    context: int = CONTEXT,
    eps: float = 1e-5,
    tied: bool = True,
    deviation: float = 0.02,
    **settings: Any,
) -> Decoder:
    """Returns the spec of a Mamba-2 of these sizes.

    Args:
        width: the width of the residual stream.
        layers: the number of layers.
        heads: heads of states; None means as many as make twice ``width``.
        head_width: the channels of one head.
        states: the states of each channel.
        vocab: the number of token ids.
        context: the longest sequence that is meant.
        eps: of all norms.
        tied: whether the head reads the token embedding.
        deviation: of the first weights.
        settings: as `groundup.mixers.mamba2.Mamba2` takes them.
    """
    heads = heads or 2 * width // head_width
    mixer = Mamba2(heads=heads, head_width=head_width, states=states, eps=eps, **settings)
    sizes = {"width": width, "layers": layers, "vocab": vocab, "context": context}
    return stacked(mixer, **sizes, eps=eps, tied=tied, deviation=deviation)


PRESETS = {
    "mamba2-130m": partial(mamba2, width=768, layers=24),
    "mamba2-370m": partial(mamba2, width=1024, layers=48),
    "mamba2-780m": partial(mamba2, width=1536, layers=48),
    "mamba2-1.3b": partial(mamba2, width=2048, layers=48),
    "mamba2-2.7b": partial(mamba2, width=2560, layers=64),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of a Mamba-2 configuration."""
    no_limit = ([0.0, math.inf], [0.0, {"__float__": "Infinity"}])  # as older and newer files say it
    keys.among("time_step_limit", *no_limit)
    keys.skip("chunk_size", "time_step_rank")  # how it is computed; a width that nothing has
    width, heads = keys.number("hidden_size", default=4096), keys.number("num_heads", default=128)
    head_width = keys.number("head_dim", default=64)
    if keys.number("expand", default=2) * width != heads * head_width:
        raise SpecError(
            f"the configuration's expand times {width} is not num_heads={heads} times head_dim={head_width}"
        )
    return mamba2(
        width=width,
        heads=heads,
        head_width=head_width,
        layers=keys.layers("num_hidden_layers", default=64),
        states=keys.number("state_size", default=128),
        groups=keys.number("n_groups", default=8),
        deviation=keys.number("initializer_range", default=0.1, whole=False),
        **read_settings(keys),
        vocab=keys.number("vocab_size", default=32768),
        tied=keys.flag("tie_word_embeddings", default=False),
    )


def write(spec: Decoder) -> dict[str, Any] | None:
    """Returns the configuration of a Mamba-2 spec."""
    match spec:
        case Decoder(
            layers=(Layer(mix=Residual(mixer=Mamba2() as mixer)), *_),
            norm=RMSNorm(eps=eps),
            init=ScaledNormal(deviation=deviation),
        ) if mixer.act in THEIR_ACTS:
            return {
                "architectures": ["Mamba2ForCausalLM"],
                **write_settings(spec, mixer, eps=eps, deviation=deviation),
                "num_heads": mixer.heads,
                "head_dim": mixer.head_width,
                "n_groups": mixer.groups,
                "expand": mixer.heads * mixer.head_width // spec.width,
            }
    return None


def rules(spec: Decoder) -> list[Rule]:
    """Returns the weight rules."""
    mixers = (layer.mix.mixer for layer in spec.layers if layer.mix)
    mixer = next(mixer for mixer in mixers if isinstance(mixer, Mamba2))
    return around(mixer_rules(mixer, "backbone.layers.{l}.mixer", "layers.{l}.mix.mixer"))


def mixer_rules(mixer: Mamba2, theirs: str, ours: str) -> list[Rule]:
    """Returns the weight rules of a Mamba-2 at these places; the maps of gate, input and step are stored as one."""
    inner = mixer.heads * mixer.head_width
    cut = split_sizes(inner, inner + 2 * mixer.groups * mixer.states, mixer.heads)
    names = {"norm.weight": "norm.weight", "dt_bias": "steps.bias"}
    return state_space_rules(theirs, ours, entry=("gate", "mix", "step"), cut=cut, names=names)


FAMILY = Family(
    name="mamba2", model_types=("mamba2",), presets=PRESETS, read=read, write=write, rules=rules, prefix="backbone."
)
