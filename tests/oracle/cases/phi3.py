"""Phi-3 as transformers configures it, small."""

from __future__ import annotations

from oracle.cases.llama import LLAMA
from oracle.pair import Config

PHI3: Config = {**LLAMA, "model_type": "phi3", "pad_token_id": None, "sliding_window": 6}
# Texts that grow beyond this are of 7 + 1 + 1 + 18 tokens first, so that transformers' pieces change where ours do.
LONG: Config = {
    "short_factor": [1.0, 1.01, 1.1, 1.2, 1.5, 1.6],
    "long_factor": [1.0, 1.5, 2.0, 4.0, 8.0, 16.0],
}
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
    "longrope": PHI3
    | {"original_max_position_embeddings": 27, "rope_parameters": LONG | {"rope_type": "longrope", "rope_theta": 50.0}},
    **{
        f"longrope-{kind}": PHI3
        | {
            "original_max_position_embeddings": 27,
            "rope_scaling": LONG | {"type": kind, "original_max_position_embeddings": 27},
            "sliding_window": None,
        }
        for kind in ("su", "yarn")
    },
    "longrope-fraction": PHI3
    | {
        "full_attn_mod": 1,
        "interpolate_factor": 1,
        "lm_head_bias": False,
        "original_max_position_embeddings": 27,
        "partial_rotary_factor": 0.5,
        "rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.1, 1.2], "long_factor": [1, 2, 4], "factor": 4.0},
    },
    "dropout": PHI3 | {"resid_pdrop": 0.25},
}
