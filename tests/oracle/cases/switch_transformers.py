"""Switch Transformers as transformers configures them, small: experts that are full, everywhere or here and there."""

from __future__ import annotations

from oracle.cases.t5 import T5
from oracle.pair import Config

SWITCH: Config = {
    **T5,
    "model_type": "switch_transformers",
    "architectures": ["SwitchTransformersForConditionalGeneration"],
    "num_layers": 4,
    "num_decoder_layers": 4,
    "num_sparse_encoder_layers": 2,
    "num_sparse_decoder_layers": 2,
    "num_experts": 3,
}
CASES: dict[str, Config] = {
    "room": SWITCH,
    "full": SWITCH | {"expert_capacity": 4, "router_bias": True},
    "everywhere": SWITCH | {"num_layers": 2, "num_decoder_layers": 2, "expert_capacity": 2, "dense_act_fn": "gelu"},
    "of-two-depths": SWITCH | {"num_decoder_layers": 3, "num_sparse_decoder_layers": 3, "expert_capacity": 5},
    "decoder-alone": SWITCH | {"num_layers": 1, "num_sparse_encoder_layers": 2},
    "twelve-unsaid": {k: v for k, v in SWITCH.items() if k != "num_decoder_layers"} | {"num_sparse_decoder_layers": 1},
    "losses": SWITCH
    | {
        "router_jitter_noise": 0.0,
        "router_z_loss_coef": 0.0,
        "router_aux_loss_coef": 0.01,
        "feed_forward_proj": "relu",
        "is_gated_act": False,
        "router_type": "tokens_masked",
        "router_ignore_padding_tokens": False,
        "add_router_probs": False,
        "encoder_sparse_step": 2,
        "decoder_sparse_step": 2,
    },
}
