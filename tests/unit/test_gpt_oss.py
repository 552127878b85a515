"""gpt-oss by hand: clamped experts, configurations as they are published, and files whose weights are packed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from groundup.context import Context
from groundup.errors import WeightsError
from groundup.families import PRESETS, family_of_config, gpt_oss
from groundup.families.family import Config
from groundup.hub import folder
from groundup.mixers.moe import MoE
from groundup.optim.groups import group
from groundup.parts.act import activation
from groundup.parts.gating import ClampedProduct
from groundup.parts.position import RoPE
from groundup.parts.router import SoftmaxOfTop

# As openai/gpt-oss-20b has it, without the kinds of its layers and the weight of a loss, which go unsaid.
PUBLISHED: Config = {
    "architectures": ["GptOssForCausalLM"],
    "attention_bias": True,
    "attention_dropout": 0.0,
    "eos_token_id": 200002,
    "experts_per_token": 4,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2880,
    "initial_context_length": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 2880,
    "max_position_embeddings": 131072,
    "model_type": "gpt_oss",
    "num_attention_heads": 64,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 24,
    "num_key_value_heads": 8,
    "num_local_experts": 32,
    "output_router_logits": False,
    "pad_token_id": 199999,
    "quantization_config": {"modules_to_not_convert": ["lm_head"], "quant_method": "mxfp4"},
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 32.0,
        "original_max_position_embeddings": 4096,
        "rope_type": "yarn",
        "truncate": False,
    },
    "rope_theta": 150000,
    "sliding_window": 128,
    "swiglu_limit": 7.0,
    "tie_word_embeddings": False,
    "use_cache": True,
    "vocab_size": 201088,
}


def test_the_published_configuration_is_the_preset():
    assert family_of_config(PUBLISHED).spec(PUBLISHED) == PRESETS["gpt-oss-20b"]()


def test_clamped_products_by_hand():
    act, gating = activation("gelu_sigmoid"), ClampedProduct(limit=7.0, shift=1.0)
    gate, up = torch.tensor([1.0, 9.0, -9.0, 2.0]), torch.tensor([2.0, 3.0, 3.0, -8.0])
    open_ = [1 / (1 + math.exp(-1.702 * g)) * g for g in (1.0, 7.0, -9.0, 2.0)]
    values = [3.0, 4.0, 4.0, -6.0]
    expected = [g * v for g, v in zip(open_, values, strict=True)]
    assert gating.meet(act, gate, up).tolist() == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_biases_of_experts_are_added_for_the_tokens_that_go_to_them():
    mixer: Any = MoE(experts=3, active=1, hidden=4, bias=True, router=SoftmaxOfTop(bias=True)).build(2)
    for weight in mixer.parameters():
        weight.zero_()
    mixer.router.score.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
    mixer.experts.down.bias.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    x = torch.ones(1, 2, 2)
    assert mixer(x, Context.whole(x)).tolist() == [[[3.0, 4.0]] * 2]


def test_biases_of_experts_are_not_decayed():
    groups = group(MoE(experts=3, active=1, hidden=4, bias=True).build(2))
    assert {name for name, _ in groups.vectors} == {f"experts.{name}.bias" for name in ("gate", "up", "down")}
    assert len(groups.hidden) == 4


def test_packed_experts_are_refused_by_name(tmp_path: Path):
    sizes = {"width": 32, "heads": 2, "kv_heads": 1, "head_width": 16, "hidden": 32, "vocab": 19, "context": 32}
    spec = gpt_oss.gpt_oss(layers=2, experts=2, active=1, window=4, position=RoPE(), **sizes)
    folder.write_hf(spec.build().state_dict(), spec=spec, folder=tmp_path)
    file, packed = tmp_path / "model.safetensors", "model.layers.0.mlp.experts.gate_up_proj"
    weights = load_file(file)
    del weights[packed]
    packing = {f"{packed}_blocks": (2, 64, 1, 16), f"{packed}_scales": (2, 64, 1)}
    save_file(weights | {name: torch.zeros(size, dtype=torch.uint8) for name, size in packing.items()}, file)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "mxfp4"}}))
    with pytest.raises(WeightsError, match=r"^[^\n]*gate_up_proj_(blocks|scales) as U8[^\n]*$"):
        folder.read(tmp_path)
