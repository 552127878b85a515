"""Longformer as transformers configures it, small, with one thing each that could go wrong."""

from __future__ import annotations

from oracle.pair import Config

LONGFORMER: Config = {
    "model_type": "longformer",
    "architectures": ["LongformerForMaskedLM"],
    "vocab_size": 61,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "max_position_embeddings": 66,
    "attention_window": [4, 8],
    "type_vocab_size": 1,
}
CASES: dict[str, Config] = {
    "masked": LONGFORMER,
    "bare": LONGFORMER | {"architectures": ["LongformerModel"]},
    "one window": LONGFORMER | {"attention_window": 6, "layer_norm_eps": 1e-2},
    "wide window": LONGFORMER | {"attention_window": 40, "type_vocab_size": 2},
    "padding": LONGFORMER | {"pad_token_id": 5, "hidden_act": "relu"},
}
