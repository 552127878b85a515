"""The most training that a budget allows: of a model that is given, or of the model that makes the best use of it.

A budget is operations, hours, kilowatt-hours, money or carbon. What a token takes is planned, so it holds for any
architecture and machine; which size is best is told by the law of Hoffmann et al. 2022 as Besiroglu et al. 2024 fitted
it (arXiv:2404.10102), for a LLaMA.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from groundup.errors import ConfigError
from groundup.families.llama import llama
from groundup.model.model import Model
from groundup.planner import books, units
from groundup.planner.plan import Plan, plan
from groundup.planner.scaling import BESIROGLU, LEAST_FLOPS
from groundup.planner.sizing import fitted

BUDGETS: dict[str, tuple[str, Callable[[Plan], float | None]]] = {  # what says how much of it a plan takes, and how
    "flops": ("operations", lambda made: made.train_flops),
    "max_hours": ("hours", lambda made: made.train_seconds / 3600),
    "max_usd": ("USD", lambda made: made.cost_usd),
    "max_kwh": ("kWh", lambda made: made.energy_kwh),
    "max_co2_kg": ("kg of CO2", lambda made: made.co2_kg),
}
MISSING = {
    "max_usd": "nobody says what an hour costs here; give --usd-per-hour",
    "max_kwh": "nobody says what the machine draws; give --watts",
    "max_co2_kg": "nobody says whose electricity it is, or what the machine draws; give --region and --watts",
}
DESIGN = llama(width=512, layers=8, heads=8, hidden=1408, vocab=32_000, context=2048)
ROUNDS = 4  # of finding the size: what a token takes depends on it, but little
FEW_STEPS = 200  # of a run, below which a step reads fewer tokens unless told otherwise


def within(model: Model | None, *, budget: str, amount: float, **settings: Any) -> Plan:
    """Returns the plan of the most tokens that a budget allows.

    Args:
        model: what is trained; None means the LLaMA that reaches the least loss.
        budget: a key of `BUDGETS`.
        amount: of it.
        **settings: as `groundup.planner.plan.plan` takes them, without ``tokens``.

    Raises:
        ConfigError: the budget is not above 0, does not reach for a step or for the law, or cannot be told for this
            machine.
    """
    if not isinstance(amount, int | float) or not 0 < amount < float("inf"):
        raise ConfigError(f"{budget}={amount!r} must be a number above 0")
    if model is not None:
        return _most_tokens(model, budget=budget, amount=amount, **settings)
    design = DESIGN
    for _ in range(ROUNDS):
        made = _most_tokens(design, budget=budget, amount=amount, **settings)
        if made.train_flops < LEAST_FLOPS:
            raise ConfigError(
                f"{amount:g} {BUDGETS[budget][0]} come to {units.flops(made.train_flops)} here, and the law that says "
                f"which model is best was fitted from {units.flops(LEAST_FLOPS)} on; name a MODEL, or give more"
            )
        params, _ = BESIROGLU.best(made.train_flops)
        design = fitted(DESIGN, target=params, measure=books.params, vocab=DESIGN.vocab, context=DESIGN.context)
    made = _most_tokens(design, budget=budget, amount=amount, **settings)
    what = (
        f"The model is a LLaMA of {len(design.layers)} layers and width {design.width}, the size that reaches the "
        f"least loss with these operations ({BESIROGLU.name})."
    )
    return replace(made, assumptions=(what, smaller_models(made.train_flops), *made.assumptions))


def smaller_models(flops: float) -> str:
    """Returns what models that are cheaper to use take to reach the loss that is best for so many operations."""
    told = [
        f"1/{1 / trade.share:g} of the parameters takes {trade.tokens:.3g} tokens, {trade.flops_ratio:.2f} times the "
        "operations"
        if trade.tokens < math.inf
        else f"1/{1 / trade.share:g} of them never reaches it"
        for trade in BESIROGLU.over_training(flops)
    ]
    return f"The same loss with a smaller model, cheaper to use: {'; '.join(told)}."


def _most_tokens(
    model: Model, *, budget: str, amount: float, batch_tokens: float | None = None, **settings: Any
) -> Plan:
    unit, taken = BUDGETS[budget]
    one = plan(model, tokens=1, batch_tokens=batch_tokens, ways="none", **settings)  # a step
    while True:
        each = taken(one)
        if each is None:
            raise ConfigError(MISSING[budget])
        steps = int(amount / each)
        smaller = one.batch_tokens // 2
        if steps >= FEW_STEPS or batch_tokens is not None or smaller < one.micro_batch * one.context * one.devices:
            break
        one = plan(model, tokens=1, batch_tokens=smaller, ways="none", **settings)
    if steps < 1:
        raise ConfigError(f"{amount:g} {unit} do not reach for a step, which takes {each:.3g}; give more")
    return plan(model, tokens=steps * one.batch_tokens, batch_tokens=one.batch_tokens, **settings)
