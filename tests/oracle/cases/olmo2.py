"""OLMo 2 as transformers configures it, small."""

from __future__ import annotations

from oracle.cases.llama import LLAMA
from oracle.pair import Config

OLMO2: Config = {**LLAMA, "model_type": "olmo2"}
CASES: dict[str, Config] = {
    "plain": OLMO2,
    "eps-unsaid": {name: value for name, value in OLMO2.items() if name != "rms_norm_eps"},
    "tied": OLMO2 | {"tie_word_embeddings": True, "rope_theta": 500.0, "rms_norm_eps": 1e-2},
    "gqa": OLMO2 | {"num_key_value_heads": 2, "attention_bias": True},
    "wide-heads": OLMO2 | {"head_dim": 32, "num_key_value_heads": 2, "hidden_act": "relu"},
}
