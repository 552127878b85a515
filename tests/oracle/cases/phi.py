"""Phi as transformers configures it, small, with one thing each that could go wrong."""

from __future__ import annotations

from oracle.cases.llama import SCALINGS
from oracle.pair import Config

PHI: Config = {
    "model_type": "phi",
    "vocab_size": 61,
    "max_position_embeddings": 64,
    "hidden_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "partial_rotary_factor": 0.4,
}
CASES: dict[str, Config] = {
    "published-names": PHI | {"rope_theta": 500.0, "rope_scaling": None},
    "grouped": PHI | {"num_key_value_heads": 2, "hidden_act": "gelu"},
    "normed": PHI | {"qk_layernorm": True, "layer_norm_eps": 1e-2},
    "tied": PHI | {"tie_word_embeddings": True},
    "scaled": PHI | {"hidden_size": 80, "rope_scaling": SCALINGS["yarn"]},
}
