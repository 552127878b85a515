"""Falcon as transformers configures it, small, with one thing each that could go wrong."""

from __future__ import annotations

from oracle.cases.llama import SCALINGS
from oracle.pair import Config

FALCON: Config = {
    "model_type": "falcon",
    "vocab_size": 61,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "max_position_embeddings": 64,
}
GROUPED = FALCON | {"new_decoder_architecture": True, "num_kv_heads": 3}
CASES: dict[str, Config] = {
    "one-head-of-keys": FALCON,
    "all-heads-of-keys": FALCON | {"multi_query": False, "bias": True},
    "grouped": GROUPED | {"bias": True, "ffn_hidden_size": 80},
    "grouped-one-norm": GROUPED | {"num_ln_in_parallel_attn": 1},
    "one-after-the-other": FALCON | {"parallel_attn": False, "activation": "relu"},
    "untied": GROUPED | {"tie_word_embeddings": False, "layer_norm_epsilon": 1e-2},
    "alibi": FALCON | {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True},
    "alibi-grouped": GROUPED | {"alibi": True, "num_attention_heads": 12},
    "scaled": GROUPED | {"rope_theta": 1000.0, "rope_scaling": SCALINGS["yarn"]},
}
