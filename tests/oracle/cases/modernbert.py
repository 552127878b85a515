"""ModernBERT as transformers configures it, small, with one thing each that could go wrong."""

from __future__ import annotations

from oracle.pair import Config

MODERNBERT: Config = {
    "model_type": "modernbert",
    "architectures": ["ModernBertForMaskedLM"],
    "vocab_size": 61,
    "hidden_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "max_position_embeddings": 64,
    "local_attention": 8,
    "pad_token_id": 0,
}
ROPES = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    "full_attention": {"rope_type": "default", "rope_theta": 5000.0},
}
CASES: dict[str, Config] = {
    "masked": MODERNBERT,
    "bare": MODERNBERT | {"architectures": ["ModernBertModel"]},
    "nothing-to-tie": MODERNBERT | {"architectures": ["ModernBertModel"], "tie_word_embeddings": False},
    "each-second": MODERNBERT | {"global_attn_every_n_layers": 2, "norm_eps": 1e-2},
    "in-the-words-of-4": MODERNBERT | {"global_rope_theta": 700.0, "local_rope_theta": 50.0},
    "in-the-words-of-5": MODERNBERT | {"rope_parameters": ROPES, "layer_types": ["sliding_attention"] * 5},
    "biased": MODERNBERT | {"attention_bias": True, "mlp_bias": True, "norm_bias": True, "classifier_bias": True},
    "another-head": MODERNBERT | {"decoder_bias": False, "classifier_activation": "relu", "hidden_activation": "silu"},
}
