"""Qwen3 as transformers configures it, small."""

from __future__ import annotations

from oracle.cases.llama import LLAMA, SCALINGS
from oracle.pair import Config

QWEN3: Config = {**LLAMA, "model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 8}
CASES: dict[str, Config] = {
    "plain": QWEN3,
    "tied": QWEN3 | {"tie_word_embeddings": True, "rope_theta": 1e6, "rms_norm_eps": 1e-2},
    "heads-unsaid": {name: value for name, value in QWEN3.items() if name != "head_dim"},
    "attention_bias": QWEN3 | {"attention_bias": True},
    "odd-heads": QWEN3 | {"num_attention_heads": 10},
    "yarn": QWEN3 | {"head_dim": 32, "rope_scaling": SCALINGS["yarn"]},
    "upper-windows": QWEN3 | {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
}
