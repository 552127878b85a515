"""LLaMA as transformers configures it, small, with one thing each that could go wrong."""

from __future__ import annotations

from oracle.pair import Config

LLAMA: Config = {
    "model_type": "llama",
    "vocab_size": 61,
    "max_position_embeddings": 64,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "rms_norm_eps": 1e-5,
}

# Each in the words of both transformers 4 and 5. The lengths are such that every branch of a scaling turns some pairs.
SCALINGS: dict[str, Config] = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048},
    "yarn-tuned": {
        "rope_type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 512,
        "beta_fast": 8.0,
        "beta_slow": 2.0,
        "attention_factor": 1.25,
    },
    "yarn-one-strength": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "mscale": 0.7},
    "yarn-no-strength": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "mscale": 0.7,
        "mscale_all_dim": 0.0,
    },
}

SCALED = LLAMA | {"head_dim": 32, "num_key_value_heads": 2}


CASES: dict[str, Config] = {
    "mha": LLAMA,
    "gqa": LLAMA | {"num_key_value_heads": 2},
    "mqa": LLAMA | {"num_key_value_heads": 1},
    "attention_bias": LLAMA | {"attention_bias": True, "num_key_value_heads": 2},
    "mlp_bias": LLAMA | {"mlp_bias": True},
    "tied": LLAMA | {"tie_word_embeddings": True},
    "wide-heads": LLAMA | {"head_dim": 32, "num_key_value_heads": 2, "attention_bias": True},
    "narrow-heads": LLAMA | {"head_dim": 6},
    "theta": LLAMA | {"rope_theta": 500_000.0},
    "small-theta": LLAMA | {"rope_parameters": {"rope_theta": 100.0, "rope_type": "default"}},
    "wide": LLAMA | {"hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 300, "vocab_size": 300},
    **{name: LLAMA | {"hidden_act": name} for name in ("gelu", "gelu_pytorch_tanh", "relu")},
    **{f"{n}-old": SCALED | {"rope_theta": 1000.0, "rope_scaling": s} for n, s in SCALINGS.items()},
    **{f"{n}-new": SCALED | {"rope_parameters": {"rope_theta": 1000.0, **s}} for n, s in SCALINGS.items()},
}
