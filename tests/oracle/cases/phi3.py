"""Phi-3 as transformers configures it, small."""

from __future__ import annotations

from oracle.cases.llama import LLAMA
from oracle.pair import Config

PHI3: Config = {**LLAMA, "model_type": "phi3", "pad_token_id": None, "sliding_window": 6}
CASES: dict[str, Config] = {
    "plain": PHI3,
    "gqa": PHI3 | {"num_key_value_heads": 2, "rope_theta": 500.0},
    "mqa": PHI3 | {"num_key_value_heads": 1, "sliding_window": None, "tie_word_embeddings": True},
    "wide-heads": PHI3 | {"head_dim": 32, "num_key_value_heads": 2},
    "fraction": PHI3 | {"head_dim": 16, "partial_rotary_factor": 0.5},
    "as-published": PHI3
    | {
        "attention_bias": False,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "original_max_position_embeddings": 64,
        "rope_scaling": None,
    },
    "dropout": PHI3 | {"resid_pdrop": 0.25},
}
