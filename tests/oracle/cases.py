"""The models that are held against transformers: configurations, small, with one thing each that could go wrong."""

from __future__ import annotations

from typing import Any

from groundup.families import PRESETS, family_of
from groundup.families.gpt2 import FAMILY as GPT2_FAMILY
from groundup.families.llama import FAMILY as LLAMA_FAMILY

Config = dict[str, Any]

GPT2: Config = {"model_type": "gpt2", "vocab_size": 61, "n_positions": 64, "n_embd": 48, "n_layer": 2, "n_head": 4}
LLAMA: Config = {
    "model_type": "llama",
    "vocab_size": 61,
    "max_position_embeddings": 64,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "rms_norm_eps": 1e-5,
}

# Each in the words of both transformers 4 and 5. The lengths are such that every branch of a scaling turns some pairs.
SCALINGS: dict[str, Config] = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048},
    "yarn-tuned": {
        "rope_type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 512,
        "beta_fast": 8.0,
        "beta_slow": 2.0,
        "attention_factor": 1.25,
    },
}

SCALED = LLAMA | {"head_dim": 32, "num_key_value_heads": 2}


def scaled_down(name: str) -> Config:
    """The configuration of a preset with its proportions of heads, and everything else small."""
    spec = PRESETS[name]()
    family = family_of(spec)
    assert family is not None
    config = family.config(spec)
    if family is GPT2_FAMILY:
        return config | {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_inner": 192, "vocab_size": 61, "n_positions": 64}
    assert family is LLAMA_FAMILY
    heads = 8 if config["num_attention_heads"] % 8 == 0 else 6
    groups = config["num_attention_heads"] // config["num_key_value_heads"]
    small = {"hidden_size": 8 * heads, "head_dim": 8, "num_hidden_layers": 3, "intermediate_size": 96, "vocab_size": 67}
    return config | small | {"num_attention_heads": heads, "num_key_value_heads": max(1, heads // groups)}


GPT2_CASES: dict[str, Config] = {
    "tied": GPT2,
    "untied": GPT2 | {"tie_word_embeddings": False},
    "n_inner": GPT2 | {"n_inner": 100, "n_layer": 3, "n_head": 3},
    "eps": GPT2 | {"layer_norm_epsilon": 1e-2},
    "wide": GPT2 | {"n_embd": 128, "n_head": 2, "n_layer": 4, "vocab_size": 300},
    "one-head": GPT2 | {"n_head": 1, "n_layer": 1},
    **{
        name: GPT2 | {"activation_function": name}
        for name in ("gelu", "gelu_fast", "gelu_pytorch_tanh", "gelu_python", "relu", "relu2", "silu", "swish")
    },
    **{name: scaled_down(name) for name in ("gpt2-xl", "gpt3-175b")},
}

LLAMA_CASES: dict[str, Config] = {
    "mha": LLAMA,
    "gqa": LLAMA | {"num_key_value_heads": 2},
    "mqa": LLAMA | {"num_key_value_heads": 1},
    "attention_bias": LLAMA | {"attention_bias": True, "num_key_value_heads": 2},
    "mlp_bias": LLAMA | {"mlp_bias": True},
    "tied": LLAMA | {"tie_word_embeddings": True},
    "wide-heads": LLAMA | {"head_dim": 32, "num_key_value_heads": 2, "attention_bias": True},
    "narrow-heads": LLAMA | {"head_dim": 6},
    "theta": LLAMA | {"rope_theta": 500_000.0},
    "small-theta": LLAMA | {"rope_parameters": {"rope_theta": 100.0, "rope_type": "default"}},
    "wide": LLAMA | {"hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 300, "vocab_size": 300},
    **{name: LLAMA | {"hidden_act": name} for name in ("gelu", "gelu_pytorch_tanh", "relu")},
    **{f"{n}-old": SCALED | {"rope_theta": 1000.0, "rope_scaling": s} for n, s in SCALINGS.items()},
    **{f"{n}-new": SCALED | {"rope_parameters": {"rope_theta": 1000.0, **s}} for n, s in SCALINGS.items()},
    **{
        name: scaled_down(name)
        for name in (
            "llama-7b",
            "llama-2-7b",
            "llama-2-70b",
            "llama-3-8b",
            "llama-3.1-8b",
            "llama-3.2-1b",
            "smollm2-135m",
            "tinyllama-1.1b",
        )
    },
}

CASES = {f"gpt2/{name}": c for name, c in GPT2_CASES.items()} | {f"llama/{n}": c for n, c in LLAMA_CASES.items()}
