"""OLMo 2: LLaMA with norms after the parts instead of before, and queries and keys normed across all heads.

Source: OLMo Team 2025 (arXiv:2501.00656), section 3.2 and table 1; 1B and 32B from their published configurations.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from groundup.families import llama
from groundup.families.family import Keys
from groundup.model.decoder import Decoder
from groundup.parts.norm import AcrossHeads, NoNorm
from groundup.parts.position import RoPE
from groundup.rules import Rule, instead, rule
from groundup.specs import override_all


def olmo2(**sizes: Any) -> Decoder:
    """Returns the spec of an OLMo 2.

    Args:
        sizes: as `groundup.families.llama.llama` takes them.
    """
    return reordered(llama.llama(**sizes))


def reordered(spec: Decoder) -> Decoder:
    """Returns a LLaMA with its norms in OLMo 2's places."""
    return override_all(
        spec,
        {
            "layers.*.mix.pre": NoNorm(),
            "layers.*.mix.post": spec.norm,
            "layers.*.mix.mixer.norm": AcrossHeads(spec.norm),
            "layers.*.ffn.pre": NoNorm(),
            "layers.*.ffn.post": spec.norm,
        },
    )


sizes = partial(olmo2, vocab=100352, context=4096, position=RoPE(theta=5e5), eps=1e-6)

PRESETS = {
    "olmo-2-1b": partial(sizes, width=2048, layers=16, heads=16, hidden=8192),
    "olmo-2-7b": partial(sizes, width=4096, layers=32, heads=32, hidden=11008),
    "olmo-2-13b": partial(sizes, width=5120, layers=40, heads=40, hidden=13824),
    "olmo-2-32b": partial(sizes, width=5120, layers=64, heads=40, kv_heads=8, hidden=27648),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of an OLMo 2 configuration."""
    keys.assume(max_position_embeddings=2048, rms_norm_eps=1e-5)
    keys.only(mlp_bias=False)
    return reordered(llama.read(keys))


def write(spec: Decoder) -> dict[str, Any]:
    """Returns the configuration of an OLMo 2 spec."""
    attention, _ = llama.parts(spec)
    return {"architectures": ["Olmo2ForCausalLM"], **llama.write_sizes(spec), "attention_bias": attention.bias}


def rules(spec: Decoder) -> list[Rule]:
    """Returns the weight rules: LLaMA's, with the norms in their places."""
    theirs, ours = "model.layers.{l}", "layers.{l}"
    return instead(
        llama.rules(spec),
        rule(f"{theirs}.post_attention_layernorm.weight", f"{ours}.mix.post.weight"),
        rule(f"{theirs}.post_feedforward_layernorm.weight", f"{ours}.ffn.post.weight"),
        *(rule(f"{theirs}.self_attn.{x}_norm.weight", f"{ours}.mix.mixer.{x}_norm.norm.weight") for x in "qk"),
    )


FAMILY = dataclasses.replace(
    llama.FAMILY, name="olmo2", model_types=("olmo2",), presets=PRESETS, read=read, write=write, rules=rules
)
