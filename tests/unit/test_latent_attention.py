"""Latent attention by hand, what it remembers, and DeepSeek's figures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.context import Context
from groundup.families import PRESETS, deepseek_v2, deepseek_v3, family_of_config
from groundup.families.family import Config
from groundup.hub import folder
from groundup.mixers.latent_attention import LatentAttention
from groundup.parts.norm import NoNorm
from groundup.parts.position import NoPosition, RoPE
from groundup.parts.router import GroupedSigmoid
from groundup.planner import books
from groundup.specs import override_all

# As deepseek-ai/DeepSeek-V3 has it.
PUBLISHED: Config = {
    "model_type": "deepseek_v3",
    "attention_bias": False,
    "aux_loss_alpha": 0.001,
    "ep_size": 1,
    "first_k_dense_replace": 3,
    "hidden_act": "silu",
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "moe_intermediate_size": 2048,
    "moe_layer_freq": 1,
    "n_group": 8,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "quantization_config": {"fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]},
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 40,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096,
        "type": "yarn",
    },
    "rope_theta": 10000,
    "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid",
    "seq_aux": True,
    "tie_word_embeddings": False,
    "topk_group": 4,
    "topk_method": "noaux_tc",
    "v_head_dim": 128,
    "vocab_size": 129280,
}


def test_the_published_configuration_is_the_preset():
    assert family_of_config(PUBLISHED).spec(PUBLISHED) == PRESETS["deepseek-v3"]()


@torch.no_grad()
def test_latent_attention_by_hand():
    """One head; the latent is the first value, the second turns, and values are five latents."""
    sizes = {"heads": 1, "latent": 1, "key_width": 1, "turned_width": 1, "value_width": 1, "sharpness": 0.5**0.5}
    mixer: Any = LatentAttention(position=NoPosition(), norm=NoNorm(), **sizes).build(2)
    mixer.q.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    mixer.down.weight.copy_(torch.eye(2))
    mixer.up.weight.copy_(torch.tensor([[3.0], [5.0]]))
    mixer.out.weight.copy_(torch.tensor([[1.0], [10.0]]))
    x = torch.tensor([[[1.0, 2.0], [-1.0, 1.0]]])
    # The second query is (-1, 1) and keys are (3, 2) and (-3, 1): halved scores are -1/2 and 2, values are 5 and -5.
    first, second = math.exp(-0.5), math.exp(2.0)
    read = (5 * first - 5 * second) / (first + second)
    expected = [5.0, 50.0, read, 10 * read]
    assert mixer(x, Context.whole(x)).flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_the_state_is_a_latent_and_what_turns():
    spec = PRESETS["deepseek-v3"]()
    bytes_per_token = 61 * (512 + 64) * 2
    assert books.state_bytes(spec, rows=3, max_len=100, dtype=torch.bfloat16) == 300 * bytes_per_token
    # DeepSeek-V2, section 2.1.4 and table 1: as small as that of grouped attention with 2.25 groups.
    assert (512 + 64) / (2 * 128) == 2.25


def test_scores_are_sharpened_by_the_strength_of_yarn():
    scaling = deepseek_v2.rope.scaling
    assert deepseek_v2.sharpness(scaling, 0.707) == pytest.approx((0.1 * 0.707 * math.log(40) + 1) ** 2)
    assert deepseek_v2.sharpness(scaling, None) == deepseek_v2.sharpness(RoPE().scaling, 1.0) == 1.0


def small() -> Any:
    sizes = {"width": 32, "layers": 2, "heads": 2, "hidden": 48, "vocab": 19, "context": 32}
    parts = {"experts": 4, "active": 2, "expert_hidden": 8, "router": GroupedSigmoid(groups=2, kept=1)}
    widths = {"latent": 8, "query_latent": None, "key_width": 4, "turned_width": 4, "value_width": 4}
    return deepseek_v2.deepseek(**sizes, **parts, **widths)


@torch.no_grad()
def test_the_bias_that_moves_choices_is_read_as_it_was_written(tmp_path: Path):
    spec = small()
    weights = {name: t.to(torch.bfloat16) for name, t in spec.build().state_dict().items()}
    bias = weights["layers.1.ffn.mixer.router.move"] = torch.tensor([12.0, 12.001, 12.002, 12.003])
    folder.write_hf(weights, spec=spec, folder=tmp_path)
    read = folder.read(tmp_path)
    assert read.state_dict()["layers.1.ffn.mixer.router.move"].equal(bias)
    assert {p.dtype for p in read.parameters()} == {torch.bfloat16}


def test_the_module_that_predicts_a_second_token_is_left_out():
    known = deepseek_v3.FAMILY.ignored.fullmatch
    assert known("model.layers.61.eh_proj.weight") and known("model.layers.61.mlp.experts.0.up_proj.weight")
    assert not known("model.layers.60.mlp.gate.weight")


def test_what_no_configuration_says_is_of_no_family():
    spec = small()
    assert deepseek_v3.FAMILY.describes(spec) and not deepseek_v2.FAMILY.describes(spec)
    assert not deepseek_v3.FAMILY.describes(override_all(spec, {"layers.*.mix.mixer.sharpness": 1.3}))
    assert json.dumps(deepseek_v3.FAMILY.config(spec))
