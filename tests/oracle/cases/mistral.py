"""Mistral as transformers configures it, small: windows, their absence, and what goes unsaid."""

from __future__ import annotations

from oracle.cases.llama import LLAMA
from oracle.pair import Config

MISTRAL: Config = {**LLAMA, "model_type": "mistral", "num_key_value_heads": 2, "sliding_window": 6}
CASES: dict[str, Config] = {
    "window": MISTRAL,
    "no-window": MISTRAL | {"sliding_window": None},
    "window-unsaid": {name: value for name, value in MISTRAL.items() if name != "sliding_window"},
    "heads-unsaid": {k: v for k, v in MISTRAL.items() if k != "num_key_value_heads"} | {"num_attention_heads": 8},
    "wide-heads": MISTRAL | {"head_dim": 32},
    "odd-heads": MISTRAL | {"head_dim": 8, "num_attention_heads": 10},
    "tied": MISTRAL | {"tie_word_embeddings": True, "rope_theta": 1e6, "hidden_act": "gelu"},
}
