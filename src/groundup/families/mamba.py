"""Mamba: layers of one part each, a selective state space behind an RMSNorm, with tied embeddings.

Source: Gu and Dao 2023 (arXiv:2312.00752), table 12; the vocabulary is GPT-NeoX's 50,277 tokens, padded to 50,280.
The first weights are the authors' where they matter (steps, rates, convolution), normal elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from groundup.families.family import ACTS, THEIR_ACTS, Family, Keys
from groundup.mixers.base import MixerSpec
from groundup.mixers.mamba import Mamba
from groundup.mixers.mamba2 import Mamba2
from groundup.model.decoder import Decoder
from groundup.model.heads import Tied, Untied
from groundup.model.layer import Layer
from groundup.model.residual import Residual
from groundup.parts.init import ScaledNormal
from groundup.parts.norm import RMSNorm
from groundup.rules import SQUEEZE, Op, Rule, joined, named, rule, split

CONTEXT = 2048  # tokens that the published models were trained on; a configuration does not say


def mamba(
    *,
    width: int,
    layers: int,
    states: int = 16,
    rank: int | None = None,
    vocab: int = 50280,
    context: int = CONTEXT,
    eps: float = 1e-5,
    tied: bool = True,
    deviation: float = 0.02,
    **settings: Any,
) -> Decoder:
    """Returns the spec of a Mamba of these sizes.

    Args:
        width: the width of the residual stream.
        layers: the number of layers.
        states: the states of each inner channel.
        rank: the width from which steps are made; None means a sixteenth of ``width``.
        vocab: the number of token ids.
        context: the longest sequence that is meant.
        eps: of the norms.
        tied: whether the head reads the token embedding.
        deviation: of the first weights.
        settings: as `groundup.mixers.mamba.Mamba` takes them.
    """
    mixer = Mamba(states=states, rank=rank or math.ceil(width / 16), **settings)
    sizes = {"width": width, "layers": layers, "vocab": vocab, "context": context}
    return stacked(mixer, **sizes, eps=eps, tied=tied, deviation=deviation)


def stacked(
    mixer: MixerSpec, *, width: int, layers: int, vocab: int, context: int, eps: float, tied: bool, deviation: float
) -> Decoder:
    """Returns layers of one part each, behind an RMSNorm; the arguments are those of `mamba`."""
    norm = RMSNorm(eps=eps)
    return Decoder(
        width=width,
        vocab=vocab,
        context=context,
        layers=(Layer(mix=Residual(mixer, pre=norm)),) * layers,
        norm=norm,
        head=Tied() if tied else Untied(),
        init=ScaledNormal(deviation=deviation),
    )


PRESETS = {
    "mamba-130m": partial(mamba, width=768, layers=24),
    "mamba-370m": partial(mamba, width=1024, layers=48),
    "mamba-790m": partial(mamba, width=1536, layers=48),
    "mamba-1.4b": partial(mamba, width=2048, layers=48),
    "mamba-2.8b": partial(mamba, width=2560, layers=64),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of a Mamba configuration."""
    width = keys.number("hidden_size", "d_model", default=768)
    expand = keys.number("expand", default=2)
    keys.only(intermediate_size=expand * width, d_inner=expand * width)
    rank = keys.take("time_step_rank", default="auto")
    keys.skip("use_mambapy", "use_associative_scan")  # how transformers computes it
    return mamba(
        width=width,
        expand=expand,
        layers=keys.layers("num_hidden_layers", "n_layer", default=32),
        states=keys.number("state_size", default=16),
        rank=None if rank == "auto" else keys.number("time_step_rank"),
        deviation=keys.number("initializer_range", default=0.1, whole=False),
        **read_settings(keys),
        vocab=keys.number("vocab_size", default=50280),
        tied=keys.flag("tie_word_embeddings", default=True),
    )


def read_settings(keys: Keys) -> dict[str, Any]:
    """Returns what configurations of Mamba and Mamba-2 have in common, but for sizes."""
    keys.among("residual_in_fp32", True, False)  # a matter of precision, not of mathematics
    keys.only(rms_norm=True, ssm_cfg={})
    # First weights; they are drawn as the original's are by default.
    keys.skip("time_step_scale", "time_step_floor", "time_step_init_scheme", "rescale_prenorm_residual")
    keys.skip("fused_add_norm", "pad_vocab_size_multiple")  # the original's kernels, and what vocab_size already holds
    return {
        "context": keys.number("max_position_embeddings", default=CONTEXT),
        "conv": keys.number("conv_kernel", default=4),
        "act": keys.choice("hidden_act", known=ACTS, default="silu"),
        "bias": keys.flag("use_bias", default=False),
        "conv_bias": keys.flag("use_conv_bias", default=True),
        "eps": keys.number("layer_norm_epsilon", default=1e-5, whole=False),
        "steps": (keys.positive("time_step_min", default=1e-3), keys.positive("time_step_max", default=1e-1)),
    }


def write(spec: Decoder) -> dict[str, Any] | None:
    """Returns the configuration of a Mamba spec."""
    match spec:
        case Decoder(
            layers=(Layer(mix=Residual(mixer=Mamba() as mixer)), *_),
            norm=RMSNorm(eps=eps),
            init=ScaledNormal(deviation=deviation),
        ) if mixer.act in THEIR_ACTS:
            return {
                "architectures": ["MambaForCausalLM"],
                **write_settings(spec, mixer, eps=eps, deviation=deviation),
                "time_step_rank": mixer.rank,
                "expand": mixer.expand,
            }
    return None


def write_settings(spec: Decoder, mixer: Mamba | Mamba2, *, eps: float, deviation: float) -> dict[str, Any]:
    """Returns what configurations of Mamba and Mamba-2 have in common."""
    return {
        "vocab_size": spec.vocab,
        "hidden_size": spec.width,
        "num_hidden_layers": len(spec.layers),
        "state_size": mixer.states,
        "conv_kernel": mixer.conv,
        "hidden_act": THEIR_ACTS[mixer.act],
        "use_bias": mixer.bias,
        "use_conv_bias": mixer.conv_bias,
        "time_step_min": mixer.steps[0],
        "time_step_max": mixer.steps[1],
        "max_position_embeddings": spec.context,
        "layer_norm_epsilon": eps,
        "tie_word_embeddings": spec.head == Tied(),
        "initializer_range": deviation,
    }


def rules(spec: Decoder) -> list[Rule]:
    """Returns the weight rules."""
    return around(mixer_rules("backbone.layers.{l}.mixer", "layers.{l}.mix.mixer"))


def around(inside: Sequence[Rule]) -> list[Rule]:
    """Returns the weight rules of Mamba and Mamba-2, given those of their mixers."""
    return [
        rule("backbone.embeddings.weight", "embed.weight"),
        rule("backbone.layers.{l}.norm.weight", "layers.{l}.mix.pre.weight"),
        *inside,
        rule("backbone.norm_f.weight", "norm.weight"),
        rule("lm_head.weight", "head.weight"),
    ]


def mixer_rules(theirs: str, ours: str) -> list[Rule]:
    """Returns the weight rules of a Mamba at these places; the maps of input and gate are stored as one."""
    names = {"x_proj.weight": "select.weight", "dt_proj.weight": "step.weight", "dt_proj.bias": "steps.bias"}
    return state_space_rules(theirs, ours, entry=("x", "gate"), cut=split(2), names=names)


def state_space_rules(theirs: str, ours: str, *, entry: Sequence[str], cut: Op, names: Mapping[str, str]) -> list[Rule]:
    """Returns the weight rules of the mixer of Mamba or Mamba-2.

    Args:
        theirs: where transformers' files have it.
        ours: where it is here.
        entry: our maps of the stream, which theirs hold as one.
        cut: how they hold them.
        names: of other tensors of the mixer, theirs to ours.
    """
    alike = {"conv1d.bias": "conv.bias", "A_log": "rates.log", "D": "skip", **names}
    return [
        *joined(f"{theirs}.in_proj", ours, entry, cut),
        rule(f"{theirs}.conv1d.weight", f"{ours}.conv.weight", SQUEEZE),
        *(rule(f"{theirs}.{a}", f"{ours}.{b}") for a, b in alike.items()),
        *named({f"{theirs}.out_proj": f"{ours}.out"}),
    ]


FAMILY = Family(
    name="mamba", model_types=("mamba",), presets=PRESETS, read=read, write=write, rules=rules, prefix="backbone."
)
