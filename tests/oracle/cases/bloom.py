"""BLOOM as transformers configures it, small, with one thing each that could go wrong."""

from __future__ import annotations

from oracle.pair import Config

BLOOM: Config = {"model_type": "bloom", "vocab_size": 61, "hidden_size": 48, "n_layer": 2, "n_head": 4}
CASES: dict[str, Config] = {
    "published-names": {
        "model_type": "bloom",
        "vocab_size": 61,
        "n_embed": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "n_inner": None,
        "offset_alibi": 100,
        "masked_softmax_fusion": True,
        "bias_dropout_fusion": True,
        "attention_softmax_in_fp32": True,
        "skip_bias_add": True,
        "skip_bias_add_qkv": False,
        "pretraining_tp": 2,
        "seq_length": 64,
        "unk_token_id": 0,
    },
    "six-heads": BLOOM | {"n_head": 6},
    "exact-whole": BLOOM | {"slow_but_exact": True, "pretraining_tp": 1},
    "untied": BLOOM | {"tie_word_embeddings": False},
    "eps": BLOOM | {"layer_norm_epsilon": 1e-2},
}
