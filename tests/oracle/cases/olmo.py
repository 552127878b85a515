"""OLMo as transformers configures it, small."""

from __future__ import annotations

from oracle.cases.llama import LLAMA
from oracle.pair import Config

OLMO: Config = {name: value for name, value in LLAMA.items() if name != "rms_norm_eps"} | {"model_type": "olmo"}
CASES: dict[str, Config] = {
    "plain": OLMO,
    "tied": OLMO | {"tie_word_embeddings": True, "rope_theta": 500.0},
    "gqa": OLMO | {"num_key_value_heads": 2, "attention_bias": True},
    "clipped": OLMO | {"clip_qkv": 0.5, "attention_bias": True},
    "wide-heads": OLMO | {"head_dim": 32, "hidden_act": "relu"},
}
