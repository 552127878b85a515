"""Qwen3-Next as transformers configures it, small, with one thing each that could go wrong."""

from __future__ import annotations

from oracle.pair import Config

NEXT: Config = {
    "model_type": "qwen3_next",
    "vocab_size": 61,
    "max_position_embeddings": 64,
    "hidden_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 40,
    "rms_norm_eps": 1e-2,  # with the usual one, heads that read next to nothing are rounding, normed to full size
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
    "num_experts": 6,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 20,
}
CASES: dict[str, Config] = {
    "usual": NEXT,
    "biases": NEXT | {"attention_bias": True, "tie_word_embeddings": True, "linear_conv_kernel_dim": 2},
    "plain-layers": NEXT | {"mlp_only_layers": [1, 3], "full_attention_interval": 2, "rms_norm_eps": 1e-1},
    "every-other": NEXT | {"decoder_sparse_step": 2, "norm_topk_prob": False, "linear_num_key_heads": 4},
    "kinds": NEXT | {"layer_types": ["full_attention", "linear_attention"] * 2, "partial_rotary_factor": 0.5},
    "no-experts": NEXT | {"num_experts": 0},
    "plain-alone": NEXT | {"mlp_only_layers": [0, 1, 2, 3]},
    "attention-alone": NEXT | {"full_attention_interval": 1},
    "hub": NEXT | {"rope_theta": 100.0, "rope_scaling": None, "use_sliding_window": False},
}
