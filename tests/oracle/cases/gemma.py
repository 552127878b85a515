"""Gemma as transformers configures it, small."""

from __future__ import annotations

from oracle.cases.llama import LLAMA
from oracle.pair import Config

GEMMA: Config = {**LLAMA, "model_type": "gemma", "num_key_value_heads": 1, "head_dim": 16, "pad_token_id": 0}
CASES: dict[str, Config] = {
    "plain": GEMMA,
    "untied": GEMMA | {"tie_word_embeddings": False, "rope_theta": 500.0},
    "as-published": GEMMA | {"hidden_act": "gelu", "hidden_activation": None},
    "both-acts": GEMMA | {"hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh"},
    "other-act": GEMMA | {"hidden_act": "silu", "attention_bias": True, "num_key_value_heads": 2},
    "head-width-unsaid": {name: value for name, value in GEMMA.items() if name != "head_dim"} | {"rms_norm_eps": 1e-3},
}
