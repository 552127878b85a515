"""OPT as transformers configures it, small, with one thing each that could go wrong."""

from __future__ import annotations

from oracle.pair import Config

OPT: Config = {
    "model_type": "opt",
    "vocab_size": 61,
    "max_position_embeddings": 64,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "ffn_dim": 80,
    "pad_token_id": None,  # transformers does not train the vector of the one it has otherwise
}
CASES: dict[str, Config] = {
    "like-350m": OPT | {"word_embed_proj_dim": 20, "do_layer_norm_before": False},
    "narrow-table": OPT | {"word_embed_proj_dim": 20, "tie_word_embeddings": False},
    "no-last-norm": OPT | {"_remove_final_layer_norm": True},
    "no-biases": OPT | {"enable_bias": False},
    "unlearnt-norms": OPT | {"layer_norm_elementwise_affine": False},
    "gelu": OPT | {"activation_function": "gelu"},
}
