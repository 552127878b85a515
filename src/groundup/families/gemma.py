"""Gemma: LLaMA with norms whose weight is 1 + w, embeddings times the root of the width, and a gate of tanh GELU.

Source: Gemma Team 2024 (arXiv:2403.08295), section 2 and table 1. The root is of full precision here; transformers
rounds it to the type of the weights, which is the same in float32.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from groundup.errors import SpecError
from groundup.families import llama
from groundup.families.family import ACTS, Keys
from groundup.model.decoder import Decoder
from groundup.parts.position import RoPE
from groundup.specs import override, override_all

GELU = {"gelu": "gelu_tanh"}  # what published files call gelu_pytorch_tanh


def gemma(
    *, act: str = "gelu_tanh", eps: float = 1e-6, tied: bool = True, head_width: int = 256, **sizes: Any
) -> Decoder:
    """Returns the spec of a Gemma.

    Args:
        act: the activation of the gate.
        eps: of the norms.
        tied: whether the head reads the token embedding.
        head_width: the width of a head.
        sizes: as `groundup.families.llama.llama` takes them.
    """
    return scaled(llama.llama(act=act, eps=eps, tied=tied, head_width=head_width, **sizes))


def scaled(spec: Decoder) -> Decoder:
    """Returns a LLaMA with Gemma's norms and embeddings."""
    offsets = dict.fromkeys(("layers.*.mix.pre.offset", "layers.*.ffn.pre.offset", "norm.offset"), 1.0)
    return override_all(spec, {**offsets, "embed.width_power": 0.5})


sizes = partial(gemma, vocab=256000, context=8192)

PRESETS = {
    "gemma-2b": partial(sizes, width=2048, layers=18, heads=8, kv_heads=1, hidden=16384),
    "gemma-7b": partial(sizes, width=3072, layers=28, heads=16, hidden=24576),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of a Gemma configuration."""
    keys.assume(num_key_value_heads=16, hidden_act="gelu_pytorch_tanh")
    acts = {keys.choice("hidden_act", known=ACTS | GELU, default="gelu")}
    acts |= {keys.choice("hidden_activation", known=ACTS | GELU, default=keys.take("hidden_act"))}
    if len(acts) > 1:
        raise SpecError("the configuration's hidden_act and hidden_activation disagree; keep one of them")
    return override(scaled(read_sizes(keys)), "layers.*.ffn.mixer.act", acts.pop())


def read_sizes(keys: Keys, *, position: RoPE | None = None) -> Decoder:
    """Returns a LLaMA with what the configurations of all Gemmas say alike, and `llama.read`'s ``position``."""
    keys.assume(max_position_embeddings=8192, head_dim=256, tie_word_embeddings=True)
    keys.only(mlp_bias=False, use_bidirectional_attention=False)
    return llama.read(keys, position=position)


def write(spec: Decoder) -> dict[str, Any]:
    """Returns the configuration of a Gemma spec."""
    attention, _ = llama.parts(spec)
    return {"architectures": ["GemmaForCausalLM"], **llama.write_sizes(spec), "attention_bias": attention.bias}


FAMILY = dataclasses.replace(
    llama.FAMILY, name="gemma", model_types=("gemma",), presets=PRESETS, read=read, write=write
)
