"""Mixtral as transformers configures it, small: experts, windows and what goes unsaid."""

from __future__ import annotations

from oracle.cases.mistral import MISTRAL
from oracle.pair import Config

MIXTRAL: Config = {
    **MISTRAL,
    "model_type": "mixtral",
    "sliding_window": None,
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
}
CASES: dict[str, Config] = {
    "window": MIXTRAL | {"sliding_window": 6, "rms_norm_eps": 1e-2},
    "experts-unsaid": {k: v for k, v in MIXTRAL.items() if not k.startswith("num_") or k.endswith(("layers", "heads"))}
    | {"num_attention_heads": 8, "num_key_value_heads": 8},
    "one-active": MIXTRAL | {"num_experts_per_tok": 1, "head_dim": 8, "num_attention_heads": 10},
    "all-active": MIXTRAL | {"num_experts_per_tok": 5, "hidden_act": "gelu", "tie_word_embeddings": True},
    "one-expert": MIXTRAL | {"num_local_experts": 1, "num_experts_per_tok": 1},
    "losses": MIXTRAL | {"router_aux_loss_coef": 0.0, "output_router_logits": True, "router_jitter_noise": 0.0},
}
