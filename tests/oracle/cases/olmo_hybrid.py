"""OLMo Hybrid as transformers configures it, small, with one thing each that could go wrong.

Published files hold a convolution each of queries, keys and values. Transformers 5.23 joins them, and cuts what it
saves into equal thirds: here keys and values are as wide, so that both are the same; others are in test_olmo_hybrid.
"""

from __future__ import annotations

from oracle.pair import Config

HYBRID: Config = {
    "model_type": "olmo_hybrid",
    "vocab_size": 61,
    "max_position_embeddings": 64,
    "hidden_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "pad_token_id": None,
}
STILL = {"rope_parameters": {"rope_theta": None, "rope_type": "default"}}

CASES: dict[str, Config] = {
    "usual": HYBRID,
    "still": HYBRID | STILL,
    "two-layers": HYBRID | {"num_hidden_layers": 2},
    "other-order": HYBRID | {"layer_types": ["full_attention", "linear_attention"] * 2},
    "tied": HYBRID | {"tie_word_embeddings": True},
    "gqa": HYBRID | {"num_key_value_heads": 2, "attention_bias": True, "head_dim": 16},
    "grouped-values": HYBRID | {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_value_head_dim": 4},
    "positive-eigenvalues": HYBRID | {"linear_allow_neg_eigval": False, "linear_conv_kernel_dim": 3},
    "without-theta": HYBRID | {"rope_theta": None},
    "theta": HYBRID | {"rope_parameters": {"rope_theta": 100.0, "rope_type": "default"}},
}
