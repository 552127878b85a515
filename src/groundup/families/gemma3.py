"""Gemma 3's text models: Gemma 2 with a norm of each head of queries and keys instead of the caps.

Five local layers to one that sees all, each kind with a rotation of its own, and that of the far ones may be scaled.

Source: Gemma Team 2025 (arXiv:2503.19786), section 2; 270M from its published configuration. The larger models read
images too, which is left out.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from groundup.families import gemma, gemma2, llama, qwen3
from groundup.families.family import Keys
from groundup.families.windows import on_layers, read_ropes, read_windows, write_ropes
from groundup.model.decoder import Decoder
from groundup.parts.mask import Window
from groundup.parts.position import LinearScaling, RoPE
from groundup.rules import Rule, instead

NEAR_THETA, FAR_THETA, PATTERN = 1e4, 1e6, 6


def gemma3(
    *,
    layers: int,
    scalar: float = 256,
    window: int = 1024,
    position: RoPE = RoPE(theta=FAR_THETA),  # noqa: B008 - a spec is a value
    **sizes: Any,
) -> Decoder:
    """Returns the spec of a Gemma 3.

    Args:
        layers: the number of layers; each sixth sees all.
        scalar: products of queries and keys are multiplied by its power -1/2.
        window: how many tokens a token sees in the local layers.
        position: the rotation in the layers that see all.
        sizes: as `groundup.families.gemma.gemma` takes them.
    """
    spec = gemma.gemma(layers=layers, position=position, **sizes)
    spec = qwen3.normed(gemma2.sandwiched(spec, score=gemma2.score(scalar, cap=None)))
    local = [i for i in range(layers) if (i + 1) % PATTERN]
    return on_layers(spec, local, mask=Window(window), position=RoPE(theta=NEAR_THETA))


small = partial(gemma3, vocab=262144, context=32768, window=512)
large = partial(gemma3, vocab=262208, context=131072, position=RoPE(theta=FAR_THETA, scaling=LinearScaling(factor=8.0)))

PRESETS = {
    "gemma-3-270m": partial(small, width=640, layers=18, heads=4, kv_heads=1, hidden=2048),
    "gemma-3-1b": partial(small, width=1152, layers=26, heads=4, kv_heads=1, hidden=6912),
    "gemma-3-4b": partial(large, width=2560, layers=34, heads=8, kv_heads=4, hidden=10240),
    "gemma-3-12b": partial(large, width=3840, layers=48, heads=16, kv_heads=8, hidden=15360),
    "gemma-3-27b": partial(
        large, width=5376, layers=62, heads=32, kv_heads=16, head_width=128, hidden=21504, scalar=168
    ),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of a Gemma 3 text configuration."""
    keys.assume(num_key_value_heads=4, max_position_embeddings=131072, sliding_window=gemma2.WINDOW)
    keys.only(attn_logit_softcapping=None)
    keys.skip("_sliding_window_pattern")  # what layer_types were made of
    context = keys.number("max_position_embeddings")
    near, far = read_ropes(
        keys, context=context, near=("rope_local_base_freq", NEAR_THETA), far=("rope_theta", FAR_THETA)
    )
    spec = qwen3.normed(gemma2.read_capped(keys, gemma.read_sizes(keys, position=far), cap=None))
    every = keys.number("sliding_window_pattern", default=PATTERN)
    window = keys.number("sliding_window", default=None)
    return read_windows(keys, spec, window=window, usual=lambda i: (i + 1) % every > 0, position=near)


def write(spec: Decoder) -> dict[str, Any]:
    """Returns the configuration of a Gemma 3 text spec."""
    ropes = write_ropes(spec, near=NEAR_THETA, far=FAR_THETA)
    return {"architectures": ["Gemma3ForCausalLM"], **gemma2.write_capped(spec), **ropes}


def rules(spec: Decoder) -> list[Rule]:
    """Returns the weight rules: Qwen3's, which norms heads too, with the norms of layers in Gemma 2's places."""
    return instead(qwen3.rules(spec), *gemma2.NORMS)


FAMILY = dataclasses.replace(
    llama.FAMILY, name="gemma3", model_types=("gemma3_text",), presets=PRESETS, read=read, write=write, rules=rules
)
