"""Gemma 3's text models as transformers configures them, small: rotations in the words of transformers 4 and 5."""

from __future__ import annotations

from oracle.cases.gemma import GEMMA
from oracle.cases.gemma2 import FAR, LOCAL
from oracle.pair import Config

GEMMA3: Config = {**GEMMA, "model_type": "gemma3_text", "sliding_window": 6}
EIGHT: Config = GEMMA3 | {"num_hidden_layers": 8}
NEW: Config = {
    LOCAL: {"rope_type": "default", "rope_theta": 100.0},
    FAR: {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0},
}
CASES: dict[str, Config] = {
    "plain": EIGHT,
    "pattern": GEMMA3 | {"sliding_window_pattern": 2, "num_hidden_layers": 3},
    "old-ropes": EIGHT
    | {"rope_theta": 5000.0, "rope_local_base_freq": 100.0, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "new-ropes": EIGHT | {"rope_parameters": NEW},
    "layer-types": GEMMA3 | {"layer_types": [FAR, LOCAL], "query_pre_attn_scalar": 3, "num_key_value_heads": 2},
    "far-only": GEMMA3 | {"layer_types": [FAR, FAR], "rope_parameters": NEW},
    "local-only": GEMMA3 | {"tie_word_embeddings": False, "attention_bias": True},
    "capped-logits": GEMMA3 | {"final_logit_softcapping": 1.5, "hidden_activation": "silu"},
    "as-published": EIGHT
    | {
        "attn_logit_softcapping": None,
        "cache_implementation": "hybrid",
        "final_logit_softcapping": None,
        "rope_scaling": None,
        "use_bidirectional_attention": False,
        "_sliding_window_pattern": 6,
    },
}
