"""Qwen2 and Qwen2.5: LLaMA with biases on queries, keys and values alone; upper layers may see a window.

Sources: Yang et al. 2024 (Qwen2, arXiv:2407.10671), table 1; Qwen Team 2024 (Qwen2.5, arXiv:2412.15115), table 1;
epsilons and contexts are those of the published base models' configurations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import partial
from typing import Any

from groundup.families import llama
from groundup.families.family import Keys
from groundup.families.windows import LOCAL, on_layers, read_windows, write_kinds, write_window
from groundup.model.decoder import Decoder
from groundup.parts.mask import Window
from groundup.parts.position import RoPE
from groundup.specs import override_all


def qwen2(*, window: int | None = None, local: Iterable[int] = (), **sizes: Any) -> Decoder:
    """Returns the spec of a Qwen2.

    Args:
        window: how many tokens a token sees in the local layers.
        local: the layers that see a window.
        sizes: as `groundup.families.llama.llama` takes them.
    """
    return windowed(biased(llama.llama(**sizes)), window, local)


def biased(spec: Decoder) -> Decoder:
    """Returns a LLaMA with biases on queries, keys and values alone."""
    return override_all(spec, {"layers.*.mix.mixer.bias": True, "layers.*.mix.mixer.out_bias": False})


def windowed(spec: Decoder, window: int | None, local: Iterable[int]) -> Decoder:
    """Returns the spec with a window on its local layers."""
    return spec if window is None else on_layers(spec, local, mask=Window(window))


small = partial(qwen2, vocab=151936, context=131072, position=RoPE(theta=1e6), eps=1e-6, tied=True)
large = partial(small, vocab=152064, tied=False)

PRESETS = {
    "qwen2-0.5b": partial(small, width=896, layers=24, heads=14, kv_heads=2, hidden=4864),
    "qwen2-1.5b": partial(small, width=1536, layers=28, heads=12, kv_heads=2, hidden=8960),
    "qwen2-7b": partial(large, width=3584, layers=28, heads=28, kv_heads=4, hidden=18944),
    "qwen2-72b": partial(large, width=8192, layers=80, heads=64, kv_heads=8, hidden=29568, eps=1e-5),
    "qwen2.5-0.5b": partial(small, width=896, layers=24, heads=14, kv_heads=2, hidden=4864, context=32768),
    "qwen2.5-1.5b": partial(small, width=1536, layers=28, heads=12, kv_heads=2, hidden=8960),
    "qwen2.5-3b": partial(small, width=2048, layers=36, heads=16, kv_heads=2, hidden=11008, context=32768),
    "qwen2.5-7b": partial(large, width=3584, layers=28, heads=28, kv_heads=4, hidden=18944),
    "qwen2.5-14b": partial(large, width=5120, layers=48, heads=40, kv_heads=8, hidden=13824, eps=1e-5),
    "qwen2.5-32b": partial(large, width=5120, layers=64, heads=40, kv_heads=8, hidden=27648, eps=1e-5),
    "qwen2.5-72b": partial(large, width=8192, layers=80, heads=64, kv_heads=8, hidden=29568, eps=1e-5),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of a Qwen2 configuration."""
    keys.only(attention_bias=True)  # its name in LLaMA, where it means the output too
    keys.only(mlp_bias=False)
    return biased(read_windowed(keys))


def read_windowed(keys: Keys) -> Decoder:
    """Returns a LLaMA with the windows of a Qwen2 or Qwen3 configuration."""
    keys.assume(num_key_value_heads=32, max_position_embeddings=32768, sliding_window=4096)
    keys.only(use_mrope=False)
    spec = llama.read(keys)
    window = keys.number("sliding_window", default=None)
    window = window if keys.flag("use_sliding_window", default=False) else None
    first = keys.number("max_window_layers", default=28, whole=False)
    return read_windows(keys, spec, window=window, usual=lambda i: window is not None and i >= first)


def write(spec: Decoder) -> dict[str, Any]:
    """Returns the configuration of a Qwen2 spec."""
    return {"architectures": ["Qwen2ForCausalLM"], **llama.write_sizes(spec), **write_windowed(spec)}


def write_windowed(spec: Decoder) -> dict[str, Any]:
    """Returns what a configuration of Qwen2 or Qwen3 says of windows, in the words of transformers 5 and before."""
    window, kinds = write_window(spec), write_kinds(spec)
    first = [*kinds["layer_types"], LOCAL].index(LOCAL)
    return {"use_sliding_window": window["sliding_window"] is not None, "max_window_layers": first, **window, **kinds}


FAMILY = dataclasses.replace(
    llama.FAMILY, name="qwen2", model_types=("qwen2",), presets=PRESETS, read=read, write=write
)
