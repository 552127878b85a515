"""Phi-3 and Phi-4: LLaMA in files that hold queries, keys and values as one matrix, and the gate with its values.

Sources: Abdin et al. 2024 (Phi-3, arXiv:2404.14219), section 2, and 2024 (Phi-4, arXiv:2412.08905), section 3; windows
are those of the published configurations. The models for 128k tokens (longrope) have no presets, for their factors are
in no paper; their configurations are read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

from groundup.errors import SpecError
from groundup.families import llama, mistral
from groundup.families.family import Keys
from groundup.families.windows import write_window
from groundup.model.decoder import Decoder
from groundup.model.residual import Residual
from groundup.parts.position import LongRoPE, NoScaling, RoPE
from groundup.rules import Rule, instead, joined, split, split_sizes
from groundup.specs import override_all

phi3 = partial(mistral.mistral, vocab=32064, context=4096, window=2047)

OLDER = ("su", "yarn")  # names that Phi-3 had for longrope

PRESETS = {
    "phi-3-mini-4k": partial(phi3, width=3072, layers=32, heads=32, hidden=8192),
    "phi-3-medium-4k": partial(phi3, width=5120, layers=40, heads=40, kv_heads=10, hidden=17920),
    "phi-4": partial(
        llama.llama,
        width=5120,
        layers=40,
        heads=40,
        kv_heads=10,
        hidden=17920,
        vocab=100352,
        context=16384,
        position=RoPE(theta=2.5e5),
    ),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of a Phi-3 configuration."""
    keys.assume(max_position_embeddings=4096, rms_norm_eps=1e-5)
    keys.only(attention_bias=False, mlp_bias=False, embd_pdrop=0.0)
    keys.only(full_attn_mod=1, interpolate_factor=1, lm_head_bias=False)  # which Phi-4-mini says
    dropout = keys.number("resid_pdrop", default=0.0, whole=False)
    window = keys.number("sliding_window", default=None)
    position = _read_rope(keys)
    spec = override_all(
        llama.read(keys, position=position), dict.fromkeys(("layers.*.mix.dropout", "layers.*.ffn.dropout"), dropout)
    )
    match llama.parts(spec)[0].position:
        case RoPE(scaling=NoScaling() | LongRoPE()):
            return mistral.windowed(spec, window)
    raise SpecError("Phi-3 scales its rotations by longrope alone; remove rope_scaling")


def _read_rope(keys: Keys) -> RoPE:
    """Returns the rotation: its older names are two, and the trained length stands beside it, 4096 where it does not.

    Raises:
        SpecError: the length inside is another, of which transformers takes no notice; or it is no rotation.
    """
    original = keys.number("original_max_position_embeddings", default=4096)
    given = keys.take("rope_parameters", "rope_scaling", default={})
    if isinstance(given, Mapping):
        kinds = ("rope_type", "type")
        said = {name: "longrope" if name in kinds and value in OLDER else value for name, value in given.items()}
        if "longrope" in map(said.get, kinds):
            inside = said.setdefault("original_max_position_embeddings", original)
            if inside != original:
                raise SpecError(
                    f"the configuration's rope_parameters have original_max_position_embeddings={inside}, which "
                    f"transformers reads beside them alone, where it is {original}; write it there"
                )
        keys.config = {**keys.config, "rope_parameters": said, "rope_scaling": None}
    return llama.read_rope(keys, context=keys.number("max_position_embeddings"), fraction=1.0)


def write(spec: Decoder) -> dict[str, Any] | None:
    """Returns the configuration of a Phi-3 spec; longrope is only for heads that share the width among them."""
    attention, _ = llama.parts(spec)
    match spec.layers[0].mix, attention.position:
        case Residual(dropout=dropout), RoPE(fraction=fraction, scaling=NoScaling() | LongRoPE()) as position:
            trained = position.scaling.steady_until
            if trained is not None and attention.heads * attention.head_width != spec.width:
                return None
            return {
                "architectures": ["Phi3ForCausalLM"],
                **llama.write_sizes(spec),
                **write_window(spec),
                "rope_parameters": {**llama.write_rope(position), "partial_rotary_factor": fraction},
                **({} if trained is None else {"original_max_position_embeddings": trained}),
                "resid_pdrop": dropout,
                "pad_token_id": None,  # transformers' own, 32000, is beyond smaller vocabularies
            }
    return None


def rules(spec: Decoder) -> list[Rule]:
    """Returns the weight rules: LLaMA's, with joined matrices."""
    attention, _ = llama.parts(spec)
    queries, keys = (heads * attention.head_width for heads in (attention.heads, attention.kv_heads))
    theirs, ours = "model.layers.{l}", "layers.{l}"
    return instead(
        llama.rules(spec),
        *joined(f"{theirs}.self_attn.qkv_proj", f"{ours}.mix.mixer", "qkv", split_sizes(queries, keys, keys)),
        *joined(f"{theirs}.mlp.gate_up_proj", f"{ours}.ffn.mixer", ("gate", "up"), split(2)),
    )


FAMILY = dataclasses.replace(
    llama.FAMILY, name="phi3", model_types=("phi3",), presets=PRESETS, read=read, write=write, rules=rules
)
