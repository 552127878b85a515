"""T5 as transformers configures it, small, with one thing each that could go wrong."""

from __future__ import annotations

from oracle.pair import Config

T5: Config = {
    "model_type": "t5",
    "architectures": ["T5ForConditionalGeneration"],
    "vocab_size": 61,
    "d_model": 48,
    "d_kv": 8,
    "d_ff": 80,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
CASES: dict[str, Config] = {
    "relu": T5,
    "near": T5 | {"relative_attention_max_distance": 20, "relative_attention_num_buckets": 8},
    "wide-heads": T5 | {"d_kv": 20, "num_decoder_layers": 1},
    "gated": T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "as-version-5-says": T5 | {"feed_forward_proj": "gated-gelu", "scale_decoder_outputs": False},
    "starting": T5 | {"decoder_start_token_id": 7, "eos_token_id": 9},
    "act-by-itself": T5 | {"dense_act_fn": "silu", "is_gated_act": True},
    "gated-exact": T5 | {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu"},
    "forced": T5 | {"forced_bos_token_id": 4},
    "gated-silu": T5 | {"feed_forward_proj": "gated-silu", "layer_norm_epsilon": 1e-2},
}
