"""Jamba as transformers configures it, small, with one thing each that could go wrong."""

from __future__ import annotations

from oracle.pair import Config

JAMBA: Config = {
    "model_type": "jamba",
    "vocab_size": 61,
    "hidden_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "attn_layer_period": 3,
    "attn_layer_offset": 1,
    "num_experts": 5,
    "mamba_d_state": 6,
}
CASES: dict[str, Config] = {
    "usual": JAMBA,
    "biases": JAMBA | {"mamba_proj_bias": True, "mamba_conv_bias": False, "tie_word_embeddings": True},
    "sizes": JAMBA | {"mamba_dt_rank": 5, "mamba_expand": 1, "mamba_d_conv": 2, "rms_norm_eps": 1e-2},
    "experts-everywhere": JAMBA | {"expert_layer_period": 1, "expert_layer_offset": 0, "num_experts_per_tok": 1},
    "attention-alone": JAMBA | {"attn_layer_period": 1, "attn_layer_offset": 0, "num_hidden_layers": 2},
    "no-experts": JAMBA | {"num_experts": 1, "hidden_act": "gelu"},
    "hub": JAMBA
    | {
        "calc_logits_for_entire_prompt": False,
        "mamba_inner_layernorms": True,
        "n_ctx": 262144,
        "num_logits_to_keep": 1,
        "sliding_window": None,
        "use_mamba_kernels": True,
    },
}
