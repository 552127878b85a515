"""RecurrentGemma as transformers configures it, small, with one thing each that could go wrong."""

from __future__ import annotations

import torch
from transformers import RecurrentGemmaConfig, RecurrentGemmaModel

from oracle.pair import Config

_build = RecurrentGemmaModel.__init__


def _build_exactly(self: RecurrentGemmaModel, config: RecurrentGemmaConfig) -> None:
    """Keeps the root of the width in float32: theirs rounds it to bfloat16, which all else would be lost behind."""
    _build(self, config)
    self.register_buffer("normalizer", torch.tensor(config.hidden_size**0.5), persistent=False)


RecurrentGemmaModel.__init__ = _build_exactly  # pyrefly: ignore[bad-assignment]

GRIFFIN: Config = {
    "model_type": "recurrent_gemma",
    "vocab_size": 61,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "intermediate_size": 96,
    "attention_window_size": 8,
}
CASES: dict[str, Config] = {
    "mqa": GRIFFIN,
    "mha": GRIFFIN | {"num_key_value_heads": None, "attention_bias": True},
    "kinds": GRIFFIN | {"block_types": ["attention", "recurrent"], "num_hidden_layers": 4},
    "attention-alone": GRIFFIN | {"block_types": ["attention"], "num_hidden_layers": 2},
    "cap": GRIFFIN | {"logits_soft_cap": 2.0, "rms_norm_eps": 1e-2},
    "untied": GRIFFIN | {"tie_word_embeddings": False},
    "kernel": GRIFFIN | {"conv1d_width": 2, "hidden_activation": "silu"},
    "hub": GRIFFIN
    | {
        "partial_rotary_factor": 1.0,
        "rope_theta": 100.0,
        "head_dim": 12,
        "lru_width": 48,
        "embeddings_scale_by_sqrt_dim": True,
        "w_init_variance_scale": 0.01,
        "final_w_init_variance_scale": 0.0769,
    },
}
