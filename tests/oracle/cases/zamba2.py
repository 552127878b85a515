"""Zamba2 as transformers configures it, small, with one thing each that could go wrong."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F
from transformers.models.zamba2 import modeling_zamba2 as theirs

from oracle.pair import Config

_forward, _step = theirs.Zamba2MambaMixer.forward, theirs.mamba2_selective_state_update


def _forward_with_least_steps(self: Any, *args: Any, **kwargs: Any) -> Tensor:
    """Keeps steps above time_step_min at single tokens too: theirs does so in whole sequences only (5.23)."""

    def step(state: Tensor, x: Tensor, dt: Tensor, *others: Any, dt_bias: Tensor, **settings: Any) -> Tensor:
        dt = F.softplus(dt + dt_bias).clamp(min=self.time_step_limit[0])
        return _step(state, x, dt, *others, **settings | {"dt_softplus": False})

    theirs.mamba2_selective_state_update = step
    return _forward(self, *args, **kwargs)


theirs.Zamba2MambaMixer.forward = _forward_with_least_steps

KINDS = ["mamba", "hybrid", "mamba", "hybrid", "hybrid"]
ZAMBA2: Config = {
    "model_type": "zamba2",
    "vocab_size": 61,
    "max_position_embeddings": 64,
    "hidden_size": 32,
    "num_hidden_layers": 5,
    "layers_block_type": KINDS,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "adapter_rank": 3,
    "n_mamba_heads": 8,
    "mamba_d_state": 6,
}
CASES: dict[str, Config] = {
    "usual": ZAMBA2,
    "two-blocks": ZAMBA2 | {"num_mem_blocks": 2, "use_mem_rope": True, "rope_theta": 100.0},
    "adapted": ZAMBA2 | {"use_shared_attention_adapter": True, "num_mem_blocks": 2, "mamba_ngroups": 2},
    "biases": ZAMBA2 | {"add_bias_linear": True, "rms_norm_eps": 1e-2},
    "steps": ZAMBA2
    | {"time_step_min": 0.5, "time_step_max": 0.7, "hidden_act": "silu", "mamba_d_conv": 2, "mamba_expand": 1},
    "fed-first": ZAMBA2 | {"num_hidden_layers": 3, "layers_block_type": ["hybrid", "mamba", "hybrid"]},
    "all-fed": ZAMBA2 | {"num_hidden_layers": 2, "layers_block_type": ["hybrid", "hybrid"]},
    "hub": ZAMBA2
    | {
        "attention_head_dim": 16,
        "attention_hidden_size": 64,
        "chunk_size": 256,
        "ffn_hidden_size": 40,
        "hybrid_layer_ids": [1, 3, 4],
        "kv_channels": 8,
        "mamba_headdim": 8,
        "num_logits_to_keep": 1,
        "num_query_groups": 4,
        "use_conv_bias": True,
        "use_long_context": False,
        "use_mem_eff_path": True,
    },
}
