"""OLMo: LLaMA with LayerNorm that learns neither weight nor bias.

Source: Groeneveld et al. 2024 (arXiv:2402.00838), section 2.1 and table 1; later releases, whose queries, keys and
values are clipped, from their published configurations.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from groundup.families import llama
from groundup.families.family import Keys, clipped, limit_of
from groundup.model.decoder import Decoder
from groundup.parts.norm import LayerNorm, RMSNorm
from groundup.specs import override, override_all

NORM = LayerNorm(weight=False, bias=False)


def olmo(*, limit: float | None = None, **sizes: Any) -> Decoder:
    """Returns the spec of an OLMo.

    Args:
        limit: beyond which queries, keys and values are cut off; None means that they are not.
        sizes: as `groundup.families.llama.llama` takes them; ``eps`` is 1e-5 whatever they say.
    """
    return centred(llama.llama(**sizes), limit=limit)


def centred(spec: Decoder, *, limit: float | None) -> Decoder:
    """Returns a LLaMA with OLMo's norms, and with this limit of queries, keys and values."""
    attention, _ = llama.parts(spec)
    norms = dict.fromkeys(("layers.*.mix.pre", "layers.*.ffn.pre", "norm"), NORM)
    return override_all(spec, {**norms, "layers.*.mix.mixer": clipped(attention, limit)})


PRESETS = {
    "olmo-1b": partial(olmo, width=2048, layers=16, heads=16, hidden=8192, vocab=50304, tied=True),
    "olmo-7b": partial(olmo, width=4096, layers=32, heads=32, hidden=11008, vocab=50304),
    "olmo-7b-0424": partial(olmo, width=4096, layers=32, heads=32, hidden=11008, vocab=50304, context=4096, limit=8.0),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of an OLMo configuration."""
    keys.assume(max_position_embeddings=2048)
    keys.only(mlp_bias=False)
    return centred(llama.read(keys), limit=keys.positive("clip_qkv", default=None))


def write(spec: Decoder) -> dict[str, Any]:
    """Returns the configuration of an OLMo spec."""
    attention, _ = llama.parts(spec)
    said = llama.write_sizes(override(spec, "norm", RMSNorm()))
    del said["rms_norm_eps"]  # OLMo's is always 1e-5
    return {
        "architectures": ["OlmoForCausalLM"],
        **said,
        "attention_bias": attention.bias,
        "clip_qkv": limit_of(attention),
    }


FAMILY = dataclasses.replace(llama.FAMILY, name="olmo", model_types=("olmo",), presets=PRESETS, read=read, write=write)
