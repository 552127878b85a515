"""Families of models: thin files with presets, configurations both ways and weight rules."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from groundup.errors import SpecError, nearest
from groundup.families import (
    bart,
    bert,
    big_bird,
    bloom,
    deepseek_v2,
    deepseek_v3,
    falcon,
    gemma,
    gemma2,
    gemma3,
    gpt2,
    gpt_neox,
    gpt_oss,
    gptj,
    jamba,
    linear_attention,
    linformer,
    llama,
    longformer,
    mamba,
    mamba2,
    mistral,
    mixtral,
    modernbert,
    mpt,
    mt5,
    olmo,
    olmo2,
    olmo_hybrid,
    opt,
    palm,
    phi,
    phi3,
    qwen2,
    qwen3,
    qwen3_moe,
    qwen3_next,
    recurrent,
    recurrent_gemma,
    reformer,
    roberta,
    rwkv,
    rwkv5,
    rwkv7,
    s4,
    samba,
    seq2seq,
    switch_transformers,
    t5,
    transformer,
    zamba2,
)
from groundup.families.family import Config, Family
from groundup.model.model import Model

FAMILIES: tuple[Family, ...] = (
    gpt2.FAMILY,
    llama.FAMILY,
    bert.FAMILY,
    roberta.FAMILY,
    modernbert.FAMILY,
    t5.FAMILY,
    mt5.FAMILY,
    bart.FAMILY,
    transformer.FAMILY,
    mistral.FAMILY,
    qwen2.FAMILY,
    qwen3.FAMILY,
    mixtral.FAMILY,
    qwen3_moe.FAMILY,
    olmo.FAMILY,
    olmo2.FAMILY,
    gemma.FAMILY,
    gemma2.FAMILY,
    gemma3.FAMILY,
    phi3.FAMILY,
    recurrent.FAMILY,
    seq2seq.FAMILY,
    rwkv.FAMILY,
    rwkv5.FAMILY,
    rwkv7.FAMILY,
    mamba.FAMILY,
    gpt_neox.FAMILY,
    linear_attention.FAMILY,
    olmo_hybrid.FAMILY,
    mamba2.FAMILY,
    bloom.FAMILY,
    opt.FAMILY,
    gptj.FAMILY,
    falcon.FAMILY,
    mpt.FAMILY,
    phi.FAMILY,
    palm.FAMILY,
    recurrent_gemma.FAMILY,
    gpt_oss.FAMILY,
    jamba.FAMILY,
    qwen3_next.FAMILY,
    longformer.FAMILY,
    big_bird.FAMILY,
    zamba2.FAMILY,
    s4.FAMILY,
    samba.FAMILY,
    deepseek_v2.FAMILY,
    deepseek_v3.FAMILY,
    switch_transformers.FAMILY,
    reformer.FAMILY,
    linformer.FAMILY,
)

PRESETS: dict[str, Callable[[], Model]] = {name: make for f in FAMILIES for name, make in f.presets.items()}


def family_of_config(config: Config) -> Family:
    """Returns the family that reads a Hugging Face configuration.

    A configuration without ``model_type`` is read as GPT-2 where it uses that family's names (n_embd), as LLaMA
    otherwise.

    Raises:
        SpecError: no family knows its model_type.
    """
    kind = config.get("model_type", "gpt2" if "n_embd" in config else "llama")
    by_type = {name: family for family in FAMILIES for name in family.model_types}
    if not isinstance(kind, str) or kind not in by_type:
        hint = nearest(str(kind), by_type) or f"known: {', '.join(by_type)}"
        raise SpecError(f"no family reads model_type {kind!r}; {hint}")
    return by_type[kind]


@lru_cache(maxsize=64)
def family_of(spec: Model) -> Family | None:
    """Returns the family whose configuration says all that a spec says, or None."""
    return next((family for family in FAMILIES if family.describes(spec)), None)
