"""MPT as transformers configures it, small, with one thing each that could go wrong."""

from __future__ import annotations

from oracle.pair import Config

MPT: Config = {
    "model_type": "mpt",
    "vocab_size": 61,
    "d_model": 48,
    "n_layers": 2,
    "n_heads": 4,
    "max_seq_len": 64,
}
CASES: dict[str, Config] = {
    "published-names": MPT
    | {
        "attn_config": {
            "alibi": True,
            "alibi_bias_max": 8,
            "attn_impl": "torch",
            "attn_pdrop": 0,
            "attn_type": "multihead_attention",
            "attn_uses_sequence_id": False,
            "clip_qkv": None,
            "prefix_lm": False,
            "qk_ln": False,
            "softmax_scale": None,
        },
        "emb_pdrop": 0,
        "embedding_fraction": 1.0,
        "expansion_ratio": 4,
        "init_device": "cpu",
        "learned_pos_emb": True,
        "logit_scale": None,
        "no_bias": True,
        "norm_type": "low_precision_layernorm",
        "resid_pdrop": 0,
        "tokenizer_name": "EleutherAI/gpt-neox-20b",
        "verbose": 0,
    },
    "six-heads": MPT | {"n_heads": 6, "attn_config": {"softmax_scale": 0.2}},
    "clipped": MPT | {"attn_config": {"clip_qkv": 0.5}},
    "untied": MPT | {"tie_word_embeddings": False, "layer_norm_epsilon": 1e-2},
}
