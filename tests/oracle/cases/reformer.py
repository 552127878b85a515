"""Reformer as transformers configures it, small, with one thing each that could go wrong; test_reformer holds them."""

from __future__ import annotations

from oracle.pair import Config

REFORMER: Config = {
    "model_type": "reformer",
    "architectures": ["ReformerModelWithLMHead"],
    "is_decoder": True,
    "vocab_size": 61,
    "hidden_size": 48,
    "feed_forward_size": 80,
    "num_attention_heads": 4,
    "attention_head_size": 12,
    "attn_layers": ["local", "lsh", "local", "lsh"],
    "axial_pos_shape": [8, 16],
    "axial_pos_embds_dim": [16, 32],
    "max_position_embeddings": 128,
    "local_attn_chunk_length": 4,
    "lsh_attn_chunk_length": 8,
    "num_buckets": 4,
    "hash_seed": 0,
    "hidden_dropout_prob": 0.0,
    "local_attention_probs_dropout_prob": 0.0,
}
CASES: dict[str, Config] = {
    "both": REFORMER,
    "rounds": REFORMER | {"num_hashes": 3, "hash_seed": 5},
    "factors": REFORMER | {"num_buckets": [4, 6], "lsh_num_chunks_before": 2},
    "local": REFORMER | {"attn_layers": ["local"] * 3, "local_num_chunks_before": 0, "layer_norm_eps": 1e-2},
    "hashed": REFORMER | {"attn_layers": ["lsh"] * 2, "num_hashes": 2, "hidden_act": "gelu"},
    "feed-forward in chunks": REFORMER | {"chunk_size_feed_forward": 1, "attn_layers": ["lsh", "local"]},
    "plain positions": REFORMER | {"axial_pos_embds": False, "local_num_chunks_before": 2},
}
