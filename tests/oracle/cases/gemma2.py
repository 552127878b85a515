"""Gemma 2 as transformers configures it, small."""

from __future__ import annotations

from oracle.cases.gemma import GEMMA
from oracle.pair import Config

LOCAL, FAR = "sliding_attention", "full_attention"
GEMMA2: Config = {**GEMMA, "model_type": "gemma2", "sliding_window": 6, "num_key_value_heads": 2}
CASES: dict[str, Config] = {
    "plain": GEMMA2,
    "low-caps": GEMMA2 | {"attn_logit_softcapping": 0.5, "final_logit_softcapping": 1.5, "query_pre_attn_scalar": 3},
    "no-caps": GEMMA2 | {"attn_logit_softcapping": None, "final_logit_softcapping": None},
    "layer-types": GEMMA2 | {"layer_types": [FAR, LOCAL], "tie_word_embeddings": False},
    "no-windows": GEMMA2 | {"layer_types": [FAR, FAR]},
    "as-published": GEMMA2
    | {
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "cache_implementation": "hybrid",
        "attention_bias": False,
    },
    "other-act": GEMMA2 | {"hidden_activation": "silu", "attention_bias": True},
}
