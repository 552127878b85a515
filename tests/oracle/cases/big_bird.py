"""BigBird as transformers configures it, small, with one thing each that could go wrong; test_big_bird has blocks."""

from __future__ import annotations

from oracle.pair import Config

BIG_BIRD: Config = {
    "model_type": "big_bird",
    "architectures": ["BigBirdForMaskedLM"],
    "vocab_size": 61,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "max_position_embeddings": 64,
    "block_size": 4,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
CASES: dict[str, Config] = {
    "masked": BIG_BIRD,
    "bare": BIG_BIRD | {"architectures": ["BigBirdModel"], "random_seeds": [3, 0]},
    "both": BIG_BIRD | {"architectures": ["BigBirdForPreTraining"], "rescale_embeddings": True},
    "no bias": BIG_BIRD | {"use_bias": False, "num_random_blocks": 1, "block_size": 8, "layer_norm_eps": 1e-2},
    "full": BIG_BIRD | {"attention_type": "original_full", "rescale_embeddings": True},
}
