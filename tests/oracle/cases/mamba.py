"""Mamba as transformers configures it, small, with one thing each that could go wrong."""

from __future__ import annotations

from oracle.pair import Config

MAMBA: Config = {"model_type": "mamba", "vocab_size": 61, "hidden_size": 48, "num_hidden_layers": 2, "state_size": 8}
CASES: dict[str, Config] = {
    "tied": MAMBA,
    "untied": MAMBA | {"tie_word_embeddings": False},
    "biases": MAMBA | {"use_bias": True},
    "no-conv-bias": MAMBA | {"use_conv_bias": False},
    "wide-kernel": MAMBA | {"conv_kernel": 7, "expand": 3, "time_step_rank": 5},
    "act": MAMBA | {"hidden_act": "gelu"},
    "eps": MAMBA | {"layer_norm_epsilon": 1e-2},
    "hub": MAMBA
    | {
        "d_model": 48,
        "n_layer": 2,
        "d_inner": 96,
        "intermediate_size": 96,
        "time_step_rank": "auto",
        "fused_add_norm": True,
        "rms_norm": True,
        "ssm_cfg": {},
        "pad_vocab_size_multiple": 8,
    },
}
