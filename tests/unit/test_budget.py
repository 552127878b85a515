"""The most training that a budget allows is planned to take no more than it, and nearly as much."""

from __future__ import annotations

from typing import Any

import pytest

from groundup.errors import ConfigError
from groundup.planner.budget import BUDGETS, within
from groundup.planner.scaling import BESIROGLU
from groundup.recipes.train import resolve_run
from groundup.training.budget import Seconds
from unit.planner_stand_in import LLAMA

pytestmark = pytest.mark.usefixtures("unchecked_signatures")

AMOUNTS = {"flops": 1e16, "max_hours": 0.2, "max_usd": 0.5, "max_kwh": 0.1, "max_co2_kg": 0.01}


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_model_is_trained_for_what_there_is_and_no_more(budget: str):
    amount = AMOUNTS[budget]
    made = within(LLAMA, budget=budget, amount=amount, on="A100", region="FR", batch_tokens=4096)
    taken = BUDGETS[budget][1](made)
    assert taken is not None and 0.95 * amount <= taken <= amount * (1 + 1e-9)
    more = within(LLAMA, budget=budget, amount=3 * amount, on="A100", region="FR", batch_tokens=4096)
    assert more.tokens == pytest.approx(3 * made.tokens, rel=0.02)


def test_steps_read_less_where_they_would_be_few():
    made = within(LLAMA, budget="flops", amount=1e13, on="A100")
    assert made.steps >= 100
    assert made.batch_tokens < 2**19


@pytest.mark.parametrize(
    ("budget", "amount", "settings"),
    [("flops", 1e21, {"on": "8xH100"}), ("max_usd", 500, {"on": "8xH100"}), ("max_kwh", 30, {"on": "RTX-4090"})],
)
def test_without_a_model_it_is_the_one_that_the_law_says(budget: str, amount: float, settings: dict[str, Any]):
    made = within(None, budget=budget, amount=amount, **settings)
    taken = BUDGETS[budget][1](made)
    assert taken is not None and 0.95 * amount <= taken <= amount * (1 + 1e-9)
    params, tokens = BESIROGLU.best(made.train_flops)
    assert made.params == pytest.approx(params, rel=0.06)
    assert made.tokens == pytest.approx(tokens, rel=0.25)  # which the law takes to need 6 operations a parameter
    assert made.assumptions[0].startswith("The model is a LLaMA of ")


@pytest.mark.parametrize(
    ("model", "budget", "amount", "settings", "says"),
    [
        (LLAMA, "max_usd", 0, {}, "max_usd=0 must be a number above 0"),
        (LLAMA, "max_usd", float("nan"), {}, "max_usd=nan must be a number above 0"),
        (LLAMA, "max_usd", 5, {}, "nobody says what an hour costs here; give --usd-per-hour"),
        (LLAMA, "max_kwh", 5, {}, "nobody says what the machine draws; give --watts"),
        (LLAMA, "max_co2_kg", 5, {"on": "A100"}, "give --region and --watts"),
        (
            LLAMA,
            "flops",
            1.0,
            {"on": "A100", "batch_tokens": 4096},
            "1 operations do not reach for a step",
        ),
        (None, "flops", 1e15, {"on": "A100"}, "was fitted from 6.00 EFLOP on; name a MODEL, or give more"),
    ],
)
def test_budgets_that_cannot_be_are_refused(
    model: Any, budget: str, amount: float, settings: dict[str, Any], says: str
):
    with pytest.raises(ConfigError, match=says):
        within(model, budget=budget, amount=amount, **settings)


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ({"max_hours": 0.05}, 180.0),
        ({"max_usd": 0.1, "usd_per_hour": 2.0}, 180.0),
        ({"max_kwh": 0.005, "watts": 100.0}, 180.0),
    ],
)
def test_training_takes_the_budgets_of_plans_as_time(asked: dict[str, Any], seconds: float):
    budget = resolve_run("gpt2", **asked).budget
    assert isinstance(budget, Seconds)
    assert budget.count == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"max_usd": 1.0}, "--usd-per-hour"),
        ({"max_kwh": 1.0}, "--watts"),
        ({"max_hours": 1.0, "steps": 3}, "one budget"),
        ({"max_kwh": 1.0, "watts": -5.0}, "watts"),
    ],
)
def test_budgets_of_a_training_that_cannot_be_told_are_refused(asked: dict[str, Any], told: str):
    with pytest.raises(ConfigError, match=told):
        resolve_run("gpt2", **asked)
