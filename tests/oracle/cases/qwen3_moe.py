"""Qwen3-MoE as transformers configures it, small: weights that sum to one or not, and layers without experts."""

from __future__ import annotations

from oracle.cases.qwen3 import QWEN3
from oracle.pair import Config

QWEN3_MOE: Config = {
    **QWEN3,
    "model_type": "qwen3_moe",
    "num_experts": 6,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 24,
    "norm_topk_prob": True,
}
CASES: dict[str, Config] = {
    "plain": QWEN3_MOE,
    "sums-unsaid": {name: value for name, value in QWEN3_MOE.items() if name != "norm_topk_prob"},
    "one-active": QWEN3_MOE | {"norm_topk_prob": False, "num_experts_per_tok": 1, "router_aux_loss_coef": 0.1},
    "dense-layers": QWEN3_MOE | {"num_hidden_layers": 3, "mlp_only_layers": [1], "tie_word_embeddings": True},
    "every-other": QWEN3_MOE | {"num_hidden_layers": 4, "decoder_sparse_step": 2, "attention_bias": True},
    "windows": QWEN3_MOE | {"use_sliding_window": True, "sliding_window": 6, "hidden_act": "gelu"},
    "window-unused": QWEN3_MOE | {"use_sliding_window": False, "sliding_window": 6, "max_window_layers": 1},
}
