"""DeepSeek-V3 as transformers configures it, small: groups of sigmoids, and what published configurations add."""

from __future__ import annotations

from oracle.cases.deepseek_v2 import DEEPSEEK_V2, YARN
from oracle.pair import Config

DEEPSEEK_V3: Config = {
    **DEEPSEEK_V2,
    "model_type": "deepseek_v3",
    "num_key_value_heads": 4,
    "n_shared_experts": 1,
    "n_group": 4,
    "topk_group": 2,
}
CASES: dict[str, Config] = {
    "groups": DEEPSEEK_V3 | {"routed_scaling_factor": 2.5},
    "one-group": DEEPSEEK_V3
    | {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 2, "routed_scaling_factor": 1.0},
    "no-query-latent": DEEPSEEK_V3 | {"q_lora_rank": None, "v_head_dim": 4},
    "as-published": DEEPSEEK_V3
    | {
        "rope_theta": 100.0,
        "rope_scaling": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0, "beta_fast": 32, "beta_slow": 1},
        "aux_loss_alpha": 0.001,
        "seq_aux": True,
        "ep_size": 1,
        "moe_layer_freq": 1,
        "norm_topk_prob": True,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "num_nextn_predict_layers": 1,
        "pretraining_tp": 1,
    },
}
