"""Qwen3: LLaMA with a norm of each head of queries and keys, and heads whose width is given.

Source: Yang et al. 2025 (arXiv:2505.09388), section 2 and table 1; contexts are those of the published configurations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import partial
from typing import Any

from groundup.families import llama, qwen2
from groundup.families.family import Keys
from groundup.model.decoder import Decoder
from groundup.parts.position import RoPE
from groundup.rules import Rule, rule
from groundup.specs import override


def qwen3(*, window: int | None = None, local: Iterable[int] = (), **sizes: Any) -> Decoder:
    """Returns the spec of a Qwen3.

    Args:
        window: how many tokens a token sees in the local layers.
        local: the layers that see a window.
        sizes: as `groundup.families.llama.llama` takes them.
    """
    return qwen2.windowed(normed(llama.llama(**sizes)), window, local)


def normed(spec: Decoder) -> Decoder:
    """Returns a LLaMA whose queries and keys are normed head by head, as the stream is."""
    return override(spec, "layers.*.mix.mixer.norm", spec.norm)


sizes = partial(qwen3, kv_heads=8, head_width=128, vocab=151936, context=40960, position=RoPE(theta=1e6), eps=1e-6)

PRESETS = {
    "qwen3-0.6b": partial(sizes, width=1024, layers=28, heads=16, hidden=3072, tied=True),
    "qwen3-1.7b": partial(sizes, width=2048, layers=28, heads=16, hidden=6144, tied=True),
    "qwen3-4b": partial(sizes, width=2560, layers=36, heads=32, hidden=9728, tied=True),
    "qwen3-8b": partial(sizes, width=4096, layers=36, heads=32, hidden=12288),
    "qwen3-14b": partial(sizes, width=5120, layers=40, heads=40, hidden=17408),
    "qwen3-32b": partial(sizes, width=5120, layers=64, heads=64, hidden=25600),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of a Qwen3 configuration."""
    keys.assume(head_dim=128)
    keys.only(mlp_bias=False)
    return normed(qwen2.read_windowed(keys))


def write(spec: Decoder) -> dict[str, Any]:
    """Returns the configuration of a Qwen3 spec."""
    attention, _ = llama.parts(spec)
    said = {"attention_bias": attention.bias, **qwen2.write_windowed(spec)}
    return {"architectures": ["Qwen3ForCausalLM"], **llama.write_sizes(spec), **said}


def rules(spec: Decoder) -> list[Rule]:
    """Returns the weight rules: LLaMA's and those of the norms of queries and keys."""
    theirs, ours = "model.layers.{l}.self_attn", "layers.{l}.mix.mixer"
    return [*llama.rules(spec), *(rule(f"{theirs}.{x}_norm.weight", f"{ours}.{x}_norm.weight") for x in "qk")]


FAMILY = dataclasses.replace(
    llama.FAMILY, name="qwen3", model_types=("qwen3",), presets=PRESETS, read=read, write=write, rules=rules
)
