"""BART as transformers configures it, small, with one thing each that could go wrong."""

from __future__ import annotations

from oracle.pair import Config

BART: Config = {
    "model_type": "bart",
    "architectures": ["BartForConditionalGeneration"],
    "vocab_size": 61,
    "d_model": 48,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 80,
    "decoder_ffn_dim": 80,
    "max_position_embeddings": 64,
}
CASES: dict[str, Config] = {
    "plain": BART,
    "scaled": BART | {"scale_embedding": True, "activation_function": "relu"},
    "uneven": BART | {"decoder_layers": 1, "decoder_attention_heads": 2, "encoder_ffn_dim": 50},
    "framed": BART | {"decoder_start_token_id": 5, "forced_bos_token_id": 7, "eos_token_id": 4},
    "open-ended": BART | {"forced_eos_token_id": None, "eos_token_id": 11},
    "of-2020": BART
    | {"normalize_before": False, "add_final_layer_norm": False, "activation_dropout": 0.1, "extra_pos_embeddings": 2},
}
