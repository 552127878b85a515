"""Mixtures of experts by hand and token by token; what routers ask for, and what of a mixture is active."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from groundup.context import Batch, Context
from groundup.errors import SpecError
from groundup.mixers.mlp import GatedMLP, WeighedMLP
from groundup.mixers.moe import MoE
from groundup.model.decoder import Decoder
from groundup.model.layer import Layer
from groundup.model.residual import Residual
from groundup.objectives.loss import token_losses
from groundup.objectives.next_token import next_token
from groundup.parts.gating import Ungated
from groundup.parts.router import GroupedSigmoid, Router, SoftmaxOfTop, TopOfSoftmax, balance_loss, z_loss
from groundup.planner import books

ROUTERS = [SoftmaxOfTop(), TopOfSoftmax(), GroupedSigmoid(groups=2, kept=1, scale=1.5)]


def decoder(*routers: Router, experts: int = 4, active: int = 2) -> Decoder:
    layers = (Layer(ffn=Residual(MoE(experts=experts, active=active, hidden=12, router=r))) for r in routers)
    return Decoder(width=8, vocab=19, context=16, layers=tuple(layers))


def mixture(model: Any, layer: int) -> Any:
    """The mixture of a layer, as a module whose parts no type checker knows."""
    return model.layers[layer]["ffn"].mixer


def some_batch(*, seed: int = 0) -> Batch:
    drawn = torch.randint(19, (2, 3, 10), generator=torch.Generator().manual_seed(seed))
    return Batch(ids=drawn[0], targets=drawn[1])


def scored(router: Router, scores: list[float], *, active: int) -> tuple[list[int], list[float]]:
    """What a router makes of one token with these scores."""
    module = router.build(1, len(scores), active)
    with torch.no_grad():
        module.score.weight.copy_(torch.tensor(scores)[:, None])
    one = torch.ones(1, 1)
    chosen, weights = module(one, Context.whole(one))
    return chosen[0].tolist(), weights[0].tolist()


def test_routers_by_hand():
    scores = [math.log(weight) for weight in (1.0, 4.0, 2.0, 3.0)]
    assert scored(SoftmaxOfTop(), scores, active=2) == ([1, 3], pytest.approx([4 / 7, 3 / 7]))
    assert scored(TopOfSoftmax(), scores, active=2) == ([1, 3], pytest.approx([0.4, 0.3]))
    assert scored(TopOfSoftmax(), scores, active=1) == ([1], pytest.approx([0.4]))
    # Sigmoids are 1/2, 4/5, 2/3 and 3/4; the second group is the better.
    kept = scored(GroupedSigmoid(groups=2, kept=1, scale=2.0), scores, active=2)
    assert kept == ([3, 2], pytest.approx([2 * 9 / 17, 2 * 8 / 17]))


@torch.no_grad()
def test_what_moves_the_choice_changes_no_weight():
    router = GroupedSigmoid().build(1, 4, 2)
    router.score.weight.copy_(torch.tensor([[0.0], [2.0], [1.0], [3.0]]))
    one = torch.ones(1, 1)
    router.move.copy_(torch.tensor([9.0, 0.0, 0.0, 0.0]))
    chosen, weights = router(one, Context.whole(one))
    assert chosen.tolist() == [[0, 3]]
    open_ = torch.tensor([[0.0, 3.0]]).sigmoid()
    torch.testing.assert_close(weights, open_ / open_.sum())


@pytest.mark.parametrize("router", ROUTERS, ids=str)
@pytest.mark.parametrize("shared", [None, GatedMLP(hidden=6), WeighedMLP(hidden=6)], ids=str)
def test_a_mixture_is_every_expert_on_every_token_masked(router, shared):
    mixer: Any = MoE(experts=4, active=2, hidden=12, router=router, shared=shared).build(8).double()
    with torch.no_grad():
        for weight in mixer.parameters():
            weight.normal_(0, 0.5)
    x = torch.randn(3, 7, 8, dtype=torch.float64, requires_grad=True)
    ctx = Context.whole(x)
    chosen, weights = mixer.router(x.flatten(0, 1), ctx)
    counted = torch.zeros(21, 4, dtype=torch.float64).scatter(1, chosen, weights).view(3, 7, 4)
    masked = torch.zeros_like(x) if mixer.shared is None else mixer.shared(x, ctx)
    for expert in range(4):
        gate, up, down = (
            stacked.weight[expert] for stacked in (mixer.experts.gate, mixer.experts.up, mixer.experts.down)
        )
        masked = masked + counted[..., expert, None] * ((F.silu(x @ gate.T) * (x @ up.T)) @ down.T)
    leaves = [x, *mixer.parameters()]
    for one, two in zip(
        [mixer(x, ctx), *torch.autograd.grad(mixer(x, ctx).square().sum(), leaves)],
        [masked, *torch.autograd.grad(masked.square().sum(), leaves)],
        strict=True,
    ):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)


def test_a_token_weighs_the_network_that_all_share():
    made = WeighedMLP(hidden=6).build(2).double()
    plain = GatedMLP(hidden=6).build(2).double()
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_()
        made.weigh.weight.copy_(torch.tensor([[math.log(3.0), 0.0]]))
    plain.load_state_dict({name: t for name, t in made.state_dict().items() if not name.startswith("weigh")})
    x = torch.tensor([[[1.0, 5.0], [-1.0, 5.0]]], dtype=torch.float64)
    shares = torch.tensor([[[0.75], [0.25]]], dtype=torch.float64)
    torch.testing.assert_close(made(x, Context.whole(x)), shares * plain(x, Context.whole(x)))


def test_balance_is_equation_4_of_switch():
    shares = torch.tensor([[0.7, 0.2, 0.1], [0.6, 0.1, 0.3], [0.2, 0.3, 0.5], [0.8, 0.1, 0.1]], requires_grad=True)
    loss = balance_loss(shares, shares.argmax(-1, keepdim=True))
    assert loss.item() == pytest.approx(3 * (3 / 4 * 2.3 / 4 + 0 + 1 / 4 * 1.0 / 4))
    (slope,) = torch.autograd.grad(loss, shares)
    assert slope[0].tolist() == pytest.approx([3 * 3 / 4 / 4, 0.0, 3 * 1 / 4 / 4])
    even = torch.full((6, 3), 1 / 3)
    assert balance_loss(even, torch.arange(12).view(6, 2) % 3).item() == pytest.approx(2)


def test_z_is_equation_5_of_st_moe():
    scores = torch.tensor([[0.0, 0.0], [math.log(3.0), math.log(5.0)]])
    assert z_loss(scores).item() == pytest.approx((math.log(2) ** 2 + math.log(8) ** 2) / 2)


@pytest.mark.parametrize("kind", [SoftmaxOfTop, TopOfSoftmax, GroupedSigmoid])
def test_training_adds_what_routers_ask_for_and_evaluation_does_not(kind):
    weighed = decoder(kind(balance=0.5), kind(balance=0.5, z=0.1), kind()).build()
    plain = decoder(kind(), kind(), kind()).build()
    batch = some_batch()
    found, bare = next_token(weighed, batch), next_token(plain, batch)
    assert bare.metrics == {} and found.metrics.keys() == {"balance", "z"}
    assert found.metrics["balance"] >= 0.4 and found.metrics["z"] > 0
    extra = found.tokens * sum(found.metrics.values())
    assert found.total.item() == pytest.approx(bare.total.item() + extra, rel=1e-6)
    torch.testing.assert_close(token_losses(weighed, batch).sum(), bare.total)
    found.total.backward()
    bare.total.backward()
    slopes = (mixture(model, 1).router.score.weight.grad for model in (weighed, plain))
    assert not torch.allclose(*slopes)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore:.* should not be instantiated:DeprecationWarning")
def test_a_compiled_model_asks_for_the_same():
    model, batch = decoder(*(kind(balance=0.5, z=0.1) for kind in (SoftmaxOfTop, GroupedSigmoid))).build(), some_batch()
    eager = next_token(model, batch)
    weights = list(model.parameters())
    slopes = torch.autograd.grad(eager.total, weights)
    model.hidden = torch.compile(model.hidden, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        fast = next_token(model, batch)
        assert fast.metrics == pytest.approx(eager.metrics)
        for one, two in zip(torch.autograd.grad(fast.total, weights), slopes, strict=True):
            torch.testing.assert_close(one, two)


def test_experts_that_a_token_does_not_go_to_are_not_active():
    spec = decoder(SoftmaxOfTop(), TopOfSoftmax(), TopOfSoftmax(), experts=6, active=2)
    each = 3 * 8 * 12
    assert books.params(spec) - books.active_params(spec) == 3 * 4 * each
    dense = Decoder(width=8, vocab=19, context=16, layers=(Layer(ffn=Residual(GatedMLP(hidden=12))),))
    assert books.active_params(dense) == books.params(dense)


def test_every_expert_starts_as_a_linear_map_would():
    model = decoder(*[SoftmaxOfTop()] * 4, experts=32).replace(width=64).build()
    maps = mixture(model, 0).experts
    for stacked, deviation in ((maps.gate, 0.02), (maps.up, 0.02), (maps.down, 0.01)):
        assert stacked.weight.std((1, 2)).allclose(torch.tensor(deviation), rtol=0.15)


def test_scores_are_computed_in_the_type_of_the_weights():
    router, x = SoftmaxOfTop().build(8, 4, 2), torch.randn(5, 8)
    torch.nn.init.normal_(router.score.weight)
    expected = router(x, Context.whole(x[None]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(map(torch.equal, router(x, Context.whole(x[None])), expected))


def served(tokens: list[int], *, segments: list[int] | None = None, capacity: int = 2) -> list[float]:
    """What counts of one of four experts for tokens that each choose the named one."""
    router = TopOfSoftmax(capacity=capacity).build(4, 4, 1)
    with torch.no_grad():
        router.score.weight.copy_(100 * torch.eye(4))
    x = torch.eye(4)[torch.tensor(tokens)]
    documents = None if segments is None else torch.tensor([segments])
    _, weights = router(x, Context.whole(x[None], segments=documents))
    return weights.flatten().tolist()


def test_a_full_expert_gives_later_tokens_nothing():
    assert served([0, 1, 0, 0, 1, 2, 1, 0]) == [1, 1, 1, 0, 1, 1, 0, 0]
    assert served([0, 1, 0, 0], capacity=1) == [1, 1, 0, 0]


def test_every_document_finds_experts_empty():
    assert served([0, 0, 0, 0, 0, 1, 0, 0], segments=[0, 0, 0, 1, 1, 1, 1, 2]) == [1, 1, 0, 1, 1, 1, 0, 1]


@torch.no_grad()
def test_tokens_that_find_no_room_go_on_as_they_are():
    mixer = MoE(experts=2, active=1, hidden=4, gating=Ungated(), router=TopOfSoftmax(capacity=3)).build(2)
    for weight in mixer.parameters():
        weight.fill_(0.5)
    x = torch.ones(1, 5, 2)
    made = mixer(x, Context.whole(x))
    assert (made[:, :3] != 0).all() and (made[:, 3:] == 0).all()


def test_jitter_moves_scores_in_training_only():
    router, x = TopOfSoftmax(jitter=0.5).build(8, 4, 2), torch.randn(9, 8)
    torch.nn.init.normal_(router.score.weight)
    told = [router.train(training)(x, Context.whole(x[None]))[1] for training in (False, True, False)]
    assert torch.equal(told[0], told[2]) and not torch.equal(told[0], told[1])


def test_jitter_of_a_narrow_model_is_not_rounded():
    router, x = TopOfSoftmax(jitter=0.01).build(1, 2, 1).bfloat16(), torch.ones(4000, 1, dtype=torch.bfloat16)
    torch.nn.init.constant_(router.score.weight[:1], 1.0)
    torch.nn.init.constant_(router.score.weight[1:], 0.0)
    factors = router(x, Context.whole(x[None]))[1].logit()
    assert len(factors.unique()) > 1000
    assert abs(factors.mean() - 1) < 5e-4 and factors.min() >= 0.99 - 1e-5 and factors.max() <= 1.01 + 1e-5


@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        ({"experts": 2, "active": 3}, "active=3"),
        ({"experts": 6, "active": 2, "router": GroupedSigmoid(groups=4)}, "groups=4"),
        ({"experts": 8, "active": 2, "router": GroupedSigmoid(groups=8)}, "groups=8"),
        ({"experts": 8, "active": 2, "router": GroupedSigmoid(groups=2, kept=3)}, "kept=3"),
        ({"experts": 8, "active": 5, "router": GroupedSigmoid(groups=4, kept=2)}, "active=5"),
    ],
    ids=str,
)
def test_sizes_that_do_not_fit_are_refused(sizes, named):
    with pytest.raises(SpecError, match=named):
        MoE(hidden=4, **sizes)
