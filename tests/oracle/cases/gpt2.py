"""GPT-2 as transformers configures it, small, with one thing each that could go wrong."""

from __future__ import annotations

from oracle.pair import Config

GPT2: Config = {"model_type": "gpt2", "vocab_size": 61, "n_positions": 64, "n_embd": 48, "n_layer": 2, "n_head": 4}
CASES: dict[str, Config] = {
    "tied": GPT2,
    "untied": GPT2 | {"tie_word_embeddings": False},
    "n_inner": GPT2 | {"n_inner": 100, "n_layer": 3, "n_head": 3},
    "eps": GPT2 | {"layer_norm_epsilon": 1e-2},
    "wide": GPT2 | {"n_embd": 128, "n_head": 2, "n_layer": 4, "vocab_size": 300},
    "scaled-by-layer": GPT2 | {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True, "n_layer": 3},
    "unscaled": GPT2 | {"scale_attn_weights": False},
    "unscaled-by-layer": GPT2 | {"scale_attn_weights": False, "scale_attn_by_inverse_layer_idx": True},
    "one-layer-by-layer": GPT2 | {"scale_attn_by_inverse_layer_idx": True, "n_layer": 1},
    "one-head": GPT2 | {"n_head": 1, "n_layer": 1},
    **{
        name: GPT2 | {"activation_function": name}
        for name in ("gelu", "gelu_fast", "gelu_pytorch_tanh", "gelu_python", "relu", "relu2", "silu", "swish")
    },
}
