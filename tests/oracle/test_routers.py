"""Routers choose and weigh as those of transformers do, and ask for the same balance."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import DeepseekV2Config, DeepseekV3Config
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2TopkRouter
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func
from transformers.models.switch_transformers import modeling_switch_transformers as switch

from groundup.context import Context
from groundup.parts.router import GroupedSigmoid, SoftmaxOfTop, TopOfSoftmax, balance_loss, z_loss
from oracle.pair import TOLERANCE, distance


@pytest.mark.parametrize("active", [1, 2, 5])
def test_balance_of_a_layer_is_that_of_transformers(active: int):
    scores = torch.randn(50, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    told = torch.as_tensor(load_balancing_loss_func((scores,), 5, active))
    module = SoftmaxOfTop().build(8, 5, active)
    ours = balance_loss(module.shares(scores), module.choose(scores)[0])
    assert distance(ours, told) < TOLERANCE
    assert distance(*(torch.autograd.grad(loss, scores)[0] for loss in (ours, told))) < TOLERANCE


def test_losses_of_a_text_are_those_of_switch_transformers():
    scores = torch.randn(50, 5, generator=torch.Generator().manual_seed(0))
    shares, chosen = scores.softmax(-1), scores.argmax(-1)
    told = torch.as_tensor(switch.load_balancing_loss_func(shares[None], chosen[None]))
    assert distance(balance_loss(shares, chosen[:, None]), told) < TOLERANCE
    assert distance(z_loss(scores), torch.as_tensor(switch.router_z_loss_func(scores[None]))) < TOLERANCE


SIZES = {"hidden_size": 8, "num_attention_heads": 2, "n_routed_experts": 12, "num_experts_per_tok": 3}
GROUPS = {"n_group": 4, "topk_group": 2, "routed_scaling_factor": 2.5}


def assert_alike(ours: Any, theirs: Any) -> None:
    """Fails unless both count experts alike, whatever order they name them in."""
    theirs.weight.normal_()
    ours.score.weight.copy_(theirs.weight)
    x = torch.randn(60, 8)
    _, told, there = theirs(x)
    chosen, weights = ours(x, Context.whole(x[None]))
    empty = torch.zeros(60, 12)
    assert distance(empty.scatter(1, chosen, weights), empty.scatter(1, there, told)) < TOLERANCE


@torch.no_grad()
def test_groups_and_bias_are_those_of_deepseek_v3():
    theirs = DeepseekV3TopkRouter(DeepseekV3Config(**SIZES, **GROUPS, norm_topk_prob=True))
    ours = GroupedSigmoid(groups=4, kept=2, scale=2.5).build(8, 12, 3)
    theirs.e_score_correction_bias.normal_(0, 0.2)
    ours.move.copy_(theirs.e_score_correction_bias)
    assert_alike(ours, theirs)


@pytest.mark.parametrize(
    ("method", "groups"), [("greedy", {}), ("group_limited_greedy", {"groups": 4, "kept": 2})], ids=str
)
@torch.no_grad()
def test_groups_of_softmax_are_those_of_deepseek_v2(method: str, groups: dict[str, Any]):
    theirs = DeepseekV2TopkRouter(DeepseekV2Config(**SIZES, **GROUPS, topk_method=method))
    assert_alike(TopOfSoftmax(**groups, scale=2.5).build(8, 12, 3), theirs)
