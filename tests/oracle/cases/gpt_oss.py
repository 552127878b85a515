"""gpt-oss as transformers configures it, small: windows, the limit of experts, and rotations said in two ways."""

from __future__ import annotations

from oracle.cases.gemma2 import FAR, LOCAL
from oracle.cases.llama import LLAMA
from oracle.pair import Config

YARN: Config = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "truncate": False}
GPT_OSS: Config = {
    **LLAMA,
    "model_type": "gpt_oss",
    "num_key_value_heads": 2,
    "head_dim": 16,
    "sliding_window": 6,
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
    "intermediate_size": 24,
    "swiglu_limit": 0.5,
    "tie_word_embeddings": False,
}
CASES: dict[str, Config] = {
    "rotation-unsaid": GPT_OSS | {"max_position_embeddings": 64},
    "rotation-old": GPT_OSS | {"rope_scaling": YARN, "rope_theta": 150.0, "initial_context_length": 32},
    "rounded": GPT_OSS | {"rope_parameters": {**YARN, "rope_theta": 150.0, "truncate": True, "beta_fast": 8.0}},
    "plain-rotation": GPT_OSS | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    "layer-types": GPT_OSS | {"layer_types": [FAR, LOCAL], "experts_per_token": 2, "router_aux_loss_coef": 0.9},
    "no-windows": GPT_OSS | {"layer_types": [FAR, FAR], "tie_word_embeddings": True, "swiglu_alpha": 1.702},
    "no-biases": GPT_OSS | {"attention_bias": False, "swiglu_limit": 7.0},
}
