"""BERT as transformers configures it, small, with one thing each that could go wrong."""

from __future__ import annotations

from oracle.pair import Config

BERT: Config = {
    "model_type": "bert",
    "architectures": ["BertForMaskedLM"],
    "vocab_size": 61,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "max_position_embeddings": 64,
}
CASES: dict[str, Config] = {
    "masked": BERT,
    "bare": BERT | {"architectures": ["BertModel"]},
    "nothing-to-tie": BERT | {"architectures": ["BertModel"], "tie_word_embeddings": False},
    "both": BERT | {"architectures": ["BertForPreTraining"]},
    "eps": BERT | {"layer_norm_eps": 1e-2},
    "types": BERT | {"type_vocab_size": 5, "hidden_act": "relu"},
}
