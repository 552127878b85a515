"""Qwen2 as transformers configures it, small: windows in the words of transformers 4 and 5."""

from __future__ import annotations

from oracle.cases.llama import LLAMA
from oracle.pair import Config

QWEN2: Config = {**LLAMA, "model_type": "qwen2", "num_key_value_heads": 2}
WINDOW: Config = QWEN2 | {"use_sliding_window": True, "sliding_window": 6}
CASES: dict[str, Config] = {
    "plain": QWEN2,
    "tied": QWEN2 | {"tie_word_embeddings": True, "rope_theta": 1e6},
    "wide-heads": QWEN2 | {"head_dim": 32},
    "unused-window": QWEN2 | {"sliding_window": 6, "max_window_layers": 0},
    "upper-windows": WINDOW | {"max_window_layers": 1},
    "all-windows": WINDOW | {"max_window_layers": 0},
    "layer-types": WINDOW | {"layer_types": ["sliding_attention", "full_attention"]},
    "as-published": QWEN2 | {"use_sliding_window": False, "sliding_window": 64, "use_mrope": False},
}
