"""GPT-J as transformers configures it, small, with one thing each that could go wrong."""

from __future__ import annotations

from oracle.pair import Config

GPTJ: Config = {
    "model_type": "gptj",
    "vocab_size": 61,
    "n_positions": 64,
    "n_ctx": 64,
    "n_embd": 48,
    "n_layer": 2,
    "n_head": 3,
    "rotary_dim": 6,
}
CASES: dict[str, Config] = {
    "three-heads": GPTJ | {"n_inner": 80},
    "whole-heads": GPTJ | {"rotary_dim": 16, "activation_function": "gelu"},
    "tied": GPTJ | {"tie_word_embeddings": True},
    "eps": GPTJ | {"layer_norm_epsilon": 1e-2},
}
