"""DeepSeek-V3 and R1: V2 whose experts are chosen by sigmoids, which a bias of each expert moves to balance them.

Source: DeepSeek-AI 2024 (arXiv:2412.19437), sections 2.1 and 4.2; DeepSeek-AI 2025 (R1, arXiv:2501.12948), which is V3
trained further. Left out: the module after the last layer that predicts a second token; files that hold it, as layer
61, are read without it. Published weights are packed in eight bits (FP8), which is not read.
"""

from __future__ import annotations

import dataclasses
import re
from functools import partial
from typing import Any

from groundup.families import deepseek_v2, llama
from groundup.families.family import Keys
from groundup.model.decoder import Decoder
from groundup.parts.router import GroupedSigmoid
from groundup.rules import Rule, rule

v3 = partial(
    deepseek_v2.deepseek,
    width=7168,
    layers=61,
    heads=128,
    hidden=18432,
    experts=256,
    active=8,
    expert_hidden=2048,
    router=GroupedSigmoid(groups=8, kept=4, scale=2.5, balance=deepseek_v2.BALANCE),
    shared=1,
    dense=3,
    position=deepseek_v2.rope,
    strength=1.0,
    vocab=129280,
    context=163840,
    eps=1e-6,
)

PRESETS = {"deepseek-v3": v3, "deepseek-r1": v3}


def read(keys: Keys) -> Decoder:
    """Returns the spec of a DeepSeek-V3 configuration."""
    keys.assume(q_lora_rank=1536, n_shared_experts=1, routed_scaling_factor=2.5, first_k_dense_replace=3)
    keys.assume(num_experts_per_tok=8, n_routed_experts=256, moe_intermediate_size=2048, max_position_embeddings=4096)
    keys.only(scoring_func="sigmoid", norm_topk_prob=True, topk_method="noaux_tc", rope_interleave=True)
    keys.take("num_nextn_predict_layers", "num_mtp_layers", default=1)
    groups = {"groups": keys.number("n_group", default=8), "kept": keys.number("topk_group", default=4)}
    return deepseek_v2.read_parts(keys, GroupedSigmoid, groups)


def write(spec: Decoder) -> dict[str, Any]:
    """Returns the configuration of a DeepSeek-V3 spec."""
    said, _ = deepseek_v2.write_parts(spec)
    return {"architectures": ["DeepseekV3ForCausalLM"], **said, "norm_topk_prob": True}


def rules(spec: Decoder) -> list[Rule]:
    """Returns the weight rules: V2's, and that of the bias that moves the choice."""
    moved = rule("model.layers.{l}.mlp.gate.e_score_correction_bias", "layers.{l}.ffn.mixer.router.move")
    return [*deepseek_v2.rules(spec), moved]


FAMILY = dataclasses.replace(
    llama.FAMILY,
    name="deepseek_v3",
    model_types=("deepseek_v3",),
    presets=PRESETS,
    read=read,
    write=write,
    rules=rules,
    ignored=re.compile(rf"{llama.FAMILY.ignored.pattern}|model\.layers\.61\..+"),
)
