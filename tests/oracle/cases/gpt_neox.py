"""GPT-NeoX as transformers configures it, small, with one thing each that could go wrong."""

from __future__ import annotations

from oracle.cases.llama import SCALINGS
from oracle.pair import Config

NEOX: Config = {
    "model_type": "gpt_neox",
    "vocab_size": 61,
    "max_position_embeddings": 64,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 80,
}

CASES: dict[str, Config] = {
    "published-names": NEOX | {"rotary_emb_base": 500, "rotary_pct": 0.5, "hidden_act": "gelu_fast"},
    "names-twice": NEOX | {"rotary_emb_base": 500, "rope_theta": 500, "rotary_pct": 0.5, "partial_rotary_factor": 0.5},
    "one-after-the-other": NEOX | {"use_parallel_residual": False},
    "no-attention-bias": NEOX | {"attention_bias": False},
    "tied": NEOX | {"tie_word_embeddings": True},
    "eps": NEOX | {"layer_norm_eps": 1e-2},
    "scaled": NEOX | {"num_attention_heads": 2, "rotary_pct": 0.5, "rope_scaling": SCALINGS["yarn-tuned"]},
}
