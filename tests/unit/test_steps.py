from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from groundup.context import NOT_COUNTED, Batch
from groundup.errors import ConfigError, TrainingError
from groundup.families.llama import llama
from groundup.model.decoder import DecoderModel
from groundup.objectives.loss import Loss
from groundup.objectives.next_token import next_token
from groundup.optim.optimizers import AdamW, Muon, Optimizer
from groundup.optim.schedules import Constant, Cosine
from groundup.specs import override
from groundup.training.budget import Budget, Seconds, Steps, Tally, Tokens, hours, minutes, seconds, tokens, updates
from groundup.training.steps import Step, steps

SPEC = llama(width=16, layers=2, heads=2, hidden=24, vocab=31, context=12, tied=True)


def batch(number: int, *, rows: int = 4, uncounted: int = 0) -> Batch:
    ids = torch.randint(0, 31, (rows, 13), generator=torch.Generator().manual_seed(number))
    targets = ids[:, 1:].clone()
    targets[:, :uncounted] = NOT_COUNTED
    return Batch(ids=ids[:, :-1].contiguous(), targets=targets)


ADAMW = AdamW(lr=1e-2)


def trained(until: Budget, *, optimizer: Optimizer = ADAMW, **settings: Any) -> tuple[DecoderModel, list[Step]]:
    model = SPEC.build(seed=1)
    batches = settings.pop("batches", batch)
    run = steps(model, batches, next_token, optimizer.build(model), Cosine(), until=until, **settings)
    return model, list(run)


def test_accumulated_micro_batches_equal_the_large_batch() -> None:
    """Also where the micro-batches have different numbers of tokens that count."""
    parts = [batch(0, uncounted=9), batch(1), batch(2, uncounted=3)]
    together = Batch(ids=torch.cat([b.ids for b in parts]), targets=torch.cat([b.targets for b in parts]))
    small, some = trained(Steps(1), batches=lambda i: parts[i], accumulate=3)
    large, one = trained(Steps(1), batches=lambda i: together)
    assert some[0].tokens == one[0].tokens == 4 * (3 + 12 + 9)
    assert some[0].loss == pytest.approx(one[0].loss, abs=1e-6)
    assert some[0].gradient_norm == pytest.approx(one[0].gradient_norm, rel=1e-5)
    for a, b in zip(small.parameters(), large.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_the_same_seed_trains_the_same_weights() -> None:
    (one, _), (other, _) = trained(Steps(3)), trained(Steps(3))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("optimizer", [AdamW(lr=1e-2), Muon()])
def test_a_run_that_is_taken_up_again_goes_on_bit_by_bit(optimizer: Optimizer) -> None:
    whole, all_steps = trained(Steps(5), optimizer=optimizer)
    model = SPEC.build(seed=1)
    moved = optimizer.build(model)
    tally, seen = Tally(), []
    for stop in (2, 5):
        for step in steps(model, batch, next_token, moved, Cosine(), until=Steps(5), start=tally):
            tally = step.tally
            seen.append(step.loss)
            if tally.steps == stop:
                break
    assert seen == [step.loss for step in all_steps]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), whole.parameters(), strict=True))


def test_dropout_draws_the_same_when_resumed_and_leaves_the_global_generator_alone() -> None:
    spec = override(SPEC, "layers.*.mix.dropout", 0.3)
    losses = []
    for start in (Tally(), Tally(steps=1)):
        model = spec.build()
        frozen = AdamW(lr=1e-30, decay=0.0).build(model)
        before = torch.get_rng_state()
        run = steps(model, batch, next_token, frozen, Constant(), until=Steps(3), start=start)
        losses.append([step.loss for step in run])
        assert torch.equal(before, torch.get_rng_state())
    assert losses[0][1:] == losses[1]
    assert len(set(losses[0])) == 3


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_what_is_not_finite_stops_the_run_with_its_place(kind: str) -> None:
    model = SPEC.build()

    def broken(model: DecoderModel, read: Batch) -> Loss:
        found = next_token(model, read)
        if kind == "loss":
            return Loss(total=found.total * math.nan, tokens=found.tokens)
        return Loss(total=found.total + (_Poison.apply(model.norm.weight) * 0).sum(), tokens=found.tokens)

    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    run = steps(model, batch, broken, AdamW().build(model), Constant(), until=Steps(9), start=Tally(steps=6))
    names = "the loss" if kind == "loss" else r"the gradient of norm\.weight"
    with pytest.raises(TrainingError, match=rf"{names} .*step 7 \(micro-batch 6\)"):
        next(run)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


class _Poison(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] + math.inf


def test_a_budget_of_tokens_ends_with_the_step_that_spends_it() -> None:
    _, done = trained(Tokens(100))
    assert [step.tally.tokens for step in done] == [48, 96, 144]
    assert [step.last for step in done] == [False, False, True]
    assert [step.progress for step in done] == [0.48, 0.96, 1.0]


def test_a_budget_of_time_counts_time_inside_steps() -> None:
    _, done = trained(Seconds(1e-9))
    assert len(done) == 1
    assert done[0].tally.seconds == done[0].seconds > 0


def test_the_rate_is_that_of_the_middle_of_the_step() -> None:
    _, done = trained(Steps(10))
    assert [step.rate for step in done] == pytest.approx([Cosine().factor((i + 0.5) / 10) for i in range(10)])


def test_every_says_yes_to_multiples_and_to_the_last() -> None:
    _, done = trained(Steps(5))
    assert [step.tally.steps for step in done if step.every(2)] == [2, 4, 5]


def test_half_an_update_is_no_budget() -> None:
    for count in (0.5, 1.5):
        with pytest.raises(ConfigError, match="cuts one in parts; give a whole number"):
            updates(count)


def test_budgets_have_words_of_their_own() -> None:
    assert updates(1e3) == Steps(1000)
    assert tokens(10e9) == Tokens(10_000_000_000)
    assert hours(0.5) == minutes(30) == Seconds(1800.0)


@pytest.mark.parametrize(
    ("budget", "count", "told"),
    [
        (Steps, 0, "0 steps"),
        (updates, math.nan, "nan updates"),
        (tokens, 1e30, "1e[+]30 tokens"),
        (seconds, math.nan, "nan seconds"),
        (hours, math.inf, "inf hours"),
    ],
)
def test_budget_of_nothing_or_without_an_end_is_refused(
    budget: Callable[[float], Budget], count: float, told: str
) -> None:
    with pytest.raises(ConfigError, match=f"a budget of {told} trains nothing or never ends; give a number above 0"):
        budget(count)


def test_the_first_step_of_a_budget_of_tokens_is_not_spent_at_a_rate_of_zero() -> None:
    _, done = trained(Tokens(10_000))
    assert done[0].rate > 0


def test_budgets_tell_what_will_be_read() -> None:
    assert Steps(3).expected_tokens(10, step_seconds=2.0) == 30
    assert Tokens(35).expected_tokens(10, step_seconds=2.0) == 35
    assert Seconds(7.0).expected_tokens(10, step_seconds=2.0) == 40
    assert Seconds(0.1).expected_tokens(10, step_seconds=2.0) == 10


def test_nothing_of_a_micro_batchs_graph_is_there_when_the_next_is_computed() -> None:
    """Else its nodes lie between the new tensors, and the heap grows by as much as a third."""
    kept: list[weakref.ref[Node]] = []

    def objective(model: Any, batch: Batch) -> Loss:
        assert all(node() is None for node in kept)
        found = next_token(model, batch)
        node = Node()
        kept.append(weakref.ref(node))
        return replace(found, total=Marked.apply(found.total, node))

    model = SPEC.build(seed=1)
    list(steps(model, batch, objective, ADAMW.build(model), Constant(), until=Steps(2), accumulate=3))
    assert len(kept) == 6


class Node:
    """What a node of autograd holds."""


class Marked(torch.autograd.Function):
    """Changes nothing, and holds an object as long as it is there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, node: Node) -> Tensor:
        ctx.node = node
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None
