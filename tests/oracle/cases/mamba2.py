"""Mamba-2 as transformers configures it, small, with one thing each that could go wrong."""

from __future__ import annotations

from oracle.pair import Config

MAMBA2: Config = {
    "model_type": "mamba2",
    "vocab_size": 61,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_heads": 8,
    "head_dim": 12,
    "state_size": 8,
    "n_groups": 1,
    "chunk_size": 16,
}
CASES: dict[str, Config] = {
    "untied": MAMBA2,
    "tied": MAMBA2 | {"tie_word_embeddings": True},
    "groups": MAMBA2 | {"n_groups": 2, "num_heads": 4, "head_dim": 24},
    "biases": MAMBA2 | {"use_bias": True, "n_groups": 2},
    "no-conv-bias": MAMBA2 | {"use_conv_bias": False, "conv_kernel": 3},
    "expand": MAMBA2 | {"expand": 3, "head_dim": 18},
    "act": MAMBA2 | {"hidden_act": "gelu"},
    "eps": MAMBA2 | {"layer_norm_epsilon": 1e-2},
    "limit": MAMBA2 | {"time_step_limit": [0.0, float("inf")]},
}
