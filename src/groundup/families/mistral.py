"""Mistral 7B and NeMo: LLaMA with shared key/value heads; the first of them lets attention see a window only.

Sources: Jiang et al. 2023 (arXiv:2310.06825), table 1; versions 0.2, 0.3 and NeMo 2407, which see all, from their
published configurations.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from groundup.families import llama
from groundup.families.family import Keys
from groundup.families.windows import write_window
from groundup.model.decoder import Decoder
from groundup.parts.mask import Window
from groundup.parts.position import RoPE
from groundup.specs import override


def mistral(*, window: int | None = None, **sizes: Any) -> Decoder:
    """Returns the spec of a Mistral.

    Args:
        window: how many tokens a token sees; None means all before it.
        sizes: as `groundup.families.llama.llama` takes them.
    """
    return windowed(llama.llama(**sizes), window)


def windowed(spec: Decoder, window: int | None) -> Decoder:
    """Returns a LLaMA whose layers all see ``window`` tokens; None leaves it as it is."""
    return override(spec, "layers.*.mix.mixer.mask", Window(window)) if window else spec


mistral_7b = partial(mistral, width=4096, layers=32, heads=32, kv_heads=8, hidden=14336, context=32768)
nemo = partial(mistral, width=5120, layers=40, heads=32, kv_heads=8, head_width=128, hidden=14336, vocab=131072)

PRESETS = {
    "mistral-7b-v0.1": partial(mistral_7b, window=4096),
    "mistral-7b-v0.2": partial(mistral_7b, position=RoPE(theta=1e6)),
    "mistral-7b-v0.3": partial(mistral_7b, vocab=32768, position=RoPE(theta=1e6)),
    "mistral-nemo": partial(nemo, context=128000, position=RoPE(theta=1e6)),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of a Mistral configuration."""
    keys.assume(num_key_value_heads=8, max_position_embeddings=131072, sliding_window=4096)
    keys.only(attention_bias=False, mlp_bias=False)
    return windowed(llama.read(keys), keys.number("sliding_window", default=None))


def write(spec: Decoder) -> dict[str, Any]:
    """Returns the configuration of a Mistral spec."""
    return {"architectures": ["MistralForCausalLM"], **llama.write_sizes(spec), **write_window(spec)}


FAMILY = dataclasses.replace(
    llama.FAMILY, name="mistral", model_types=("mistral",), presets=PRESETS, read=read, write=write
)
