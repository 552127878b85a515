"""RoBERTa as transformers configures it, small, with one thing each that could go wrong."""

from __future__ import annotations

from oracle.pair import Config

ROBERTA: Config = {
    "model_type": "roberta",
    "architectures": ["RobertaForMaskedLM"],
    "vocab_size": 61,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "max_position_embeddings": 66,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "layer_norm_eps": 1e-5,
}
CASES: dict[str, Config] = {
    "masked": ROBERTA,
    "bare": ROBERTA | {"architectures": ["RobertaModel"]},
    "padded-by-7": ROBERTA | {"pad_token_id": 7, "type_vocab_size": 3},
    "relu-inside": ROBERTA | {"hidden_act": "relu"},
    "unsaid": {name: value for name, value in ROBERTA.items() if name not in ("pad_token_id", "type_vocab_size")},
}
