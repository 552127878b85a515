"""DeepSeek-V2 as transformers configures it, small: latents of queries or none, groups, and sharpened scores."""

from __future__ import annotations

from oracle.cases.llama import LLAMA
from oracle.pair import Config

DEEPSEEK_V2: Config = {
    **LLAMA,
    "model_type": "deepseek_v2",
    "num_hidden_layers": 3,
    "first_k_dense_replace": 1,
    "q_lora_rank": 20,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 6,
    "v_head_dim": 10,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 24,
    "n_shared_experts": 2,
}
YARN: Config = {"rope_theta": 100.0, "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16}
GROUPS: Config = {"topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2, "routed_scaling_factor": 4.0}
CASES: dict[str, Config] = {
    "greedy": DEEPSEEK_V2 | {"rms_norm_eps": 1e-2, "topk_method": "greedy", "n_group": 1, "topk_group": 1},
    "groups": DEEPSEEK_V2 | GROUPS,
    "no-query-latent": DEEPSEEK_V2 | {"q_lora_rank": None, "first_k_dense_replace": 0, "n_shared_experts": 1},
    "scaled": DEEPSEEK_V2 | {"routed_scaling_factor": 0.5, "tie_word_embeddings": True, "hidden_act": "gelu"},
    "yarn-old": DEEPSEEK_V2
    | {"rope_theta": 100.0, "rope_scaling": {**YARN, "type": "yarn", "mscale": 0.707, "mscale_all_dim": 0.707}},
    "yarn-two-strengths": DEEPSEEK_V2 | {"rope_parameters": {**YARN, "mscale": 0.5, "mscale_all_dim": 1.5}},
    "yarn-one-strength": DEEPSEEK_V2 | {"rope_parameters": {**YARN, "mscale_all_dim": 0.8}},
    "yarn-plain": DEEPSEEK_V2 | {"rope_parameters": YARN},
    "as-published": DEEPSEEK_V2
    | GROUPS
    | {
        "aux_loss_alpha": 0.001,
        "seq_aux": True,
        "ep_size": 1,
        "moe_layer_freq": 1,
        "norm_topk_prob": False,
        "scoring_func": "softmax",
        "pretraining_tp": 1,
        "num_key_value_heads": 4,
    },
}
