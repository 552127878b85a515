"""RWKV-4 as transformers configures it, small, with one thing each that could go wrong."""

from __future__ import annotations

from oracle.pair import Config

RWKV: Config = {
    "model_type": "rwkv",
    "vocab_size": 61,
    "context_length": 64,
    "hidden_size": 48,
    "num_hidden_layers": 2,
}
CASES: dict[str, Config] = {
    "plain": RWKV,
    "tied": RWKV | {"tie_word_embeddings": True},
    "intermediate_size": RWKV | {"intermediate_size": 100, "num_hidden_layers": 3},
    "eps": RWKV | {"layer_norm_epsilon": 1e-2},
}
