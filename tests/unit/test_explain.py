"""Every figure of a plan says where it comes from, and its formula comes to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest

from groundup.errors import ConfigError
from groundup.mixers.chunked import ChunkedAttention
from groundup.mixers.mlp import MLP
from groundup.mixers.moe import MoE
from groundup.model.heads import Untied
from groundup.model.residual import Residual
from groundup.model.reversible import Reversible, ReversibleDecoder
from groundup.objectives.usual import named
from groundup.optim.optimizers import Muon
from groundup.parts.router import TopOfSoftmax
from groundup.planner import books
from groundup.planner.budget import within
from groundup.planner.derivation import Derivation, Term, evaluate, number, written
from groundup.planner.explain import derivations, explain, figures
from groundup.planner.memory import Memory
from groundup.planner.operations import bound, operations
from groundup.planner.peak import peak_of
from groundup.planner.phantom import VIEW, Work
from groundup.planner.plan import Plan, plan
from groundup.planner.study import part_names
from groundup.planner.time import step_seconds
from groundup.specs import override
from unit.planner_stand_in import GPT2, LLAMA, MACHINE

EXPERTS = override(LLAMA, "layers.*.ffn.mixer", MoE(experts=4, active=1, hidden=16, router=TopOfSoftmax(capacity=2)))
TWICE = (Reversible(mix=Residual(ChunkedAttention(heads=2, head_width=8)), ffn=Residual(MLP(hidden=24))),) * 2
REVERSIBLE = ReversibleDecoder(width=16, vocab=60, context=32, layers=TWICE, head=Untied())
SHARED = {"on": "16xH100", "batch_tokens": 4096, "context": 64}

PLANS: dict[str, tuple[Any, dict[str, Any]]] = {
    "here": (LLAMA, {"on": MACHINE}),
    "in one micro-batch": (GPT2, {"on": MACHINE, "rows": 2, "context": 16, "tokens": 1e4}),
    "accumulated": (GPT2, {"on": MACHINE, "rows": 2, "batch_tokens": 512, "optimizer": Muon(), "watts": 60}),
    "in a process that holds much": (LLAMA, {"on": MACHINE, "process_bytes": 2**30, "precision": "bf16"}),
    "with a law of its loss": (LLAMA, {"on": MACHINE, "tokens": 1e15}),
    "of a preset": ("gpt2", {"on": "RTX-4090", "context": 256}),
    "of experts": (EXPERTS, {"on": MACHINE, "tokens": 1e6}),
    "of forwards made again": (REVERSIBLE, {"on": MACHINE, "tokens": 1e6}),
    "of two stacks": ("t5-small", {"on": "A100", "rows": 1, "context": 64}),
    "of masked tokens": ("bert-mini", {"on": "A100", "rows": 2, "objective": named("masked")}),
    "of prefixes": (LLAMA, {"on": MACHINE, "objective": named("prefix_lm")}),
    "of two kinds of layers": ("gemma-2-2b", {"on": "H100", "rows": 2, "context": 128, "region": "FR"}),
    "at a price": (LLAMA, {"on": "A100", "region": "US-CA", "usd_per_hour": 2.5, "watts": 300}),
    "laid out": (LLAMA, {**SHARED, "on": "4xH100", "region": "FR"}),
    "laid out as it was given": (GPT2, {**SHARED, "context": 32, "layout": "dp=16", "rows": 2}),
    "laid out in stages": ("gpt2", {**SHARED, "layout": "dp=2,tp=4,pp=2,zero=3,recompute=full"}),
    "laid out in rounds": ("gpt2", {**SHARED, "layout": "dp=4,tp=2,pp=2,rounds=4,recompute=selective,zero=2"}),
    "laid out over the context": ("gpt2", {**SHARED, "layout": "dp=8,cp=2,zero=0,micro=2"}),
}


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", params=list(PLANS))
def made(request: pytest.FixtureRequest, _own_cache: None) -> Plan:
    model, settings = PLANS[request.param]
    return plan(model, **settings)


def every_term(terms: tuple[Term, ...]) -> Iterator[Term]:
    for term in terms:
        yield term
        yield from every_term(term.parts)


def test_every_number_of_a_plan_can_be_explained(made: Plan):
    numbers = {field.name for field in fields(Plan) if set(str(field.type).split(" | ")) & {"int", "float", "bool"}}
    assert len(numbers) > 30
    assert numbers <= set(figures(made))


def test_formulas_come_to_the_figures(made: Plan):
    for told in derivations(made):
        value = made.devices if told.figure == "layout" else getattr(made, told.figure)
        assert told.value == value
        total = told.total()
        assert (total is None) == (value is None), told.figure
        assert value is None or total == pytest.approx(value, rel=1e-9), told.figure


def test_terms_are_the_figures_whose_names_they_bear(made: Plan):
    told = list(derivations(made))
    assert all(
        term.value == getattr(made, term.name)
        for derivation in told
        for term in derivation.terms
        if term.source == f"see {term.name}"
    )
    assert sum(term.source == f"see {term.name}" for derivation in told for term in derivation.terms) > 20


def test_what_a_term_consists_of_adds_up_to_it(made: Plan):
    for told in derivations(made):
        for term in every_term((*told.terms, *told.breakdown)):
            if term.parts:
                assert sum(part.value or 0 for part in term.parts) == term.value, (told.figure, term.name)
        if told.breakdown and told.value is not None:
            assert sum(term.value or 0 for term in told.breakdown) == pytest.approx(told.value)


def test_every_derivation_names_a_source_and_is_plain_data(made: Plan):
    for told in derivations(made):
        assert told.source
        assert told.figure == "layout" or told.meaning
        assert json.loads(json.dumps(told.to_dict()))["total"] == told.total()
        assert all(len(line) < 400 for line in str(told).splitlines())


def test_the_peak_is_told_by_component_and_node_at_its_moment(made: Plan):
    study = made.study
    if not isinstance(study.step.memory, Memory):
        assert "fullest device" in str(explain(made, "peak_bytes"))
        return
    parts = study.parts(rows=made.micro_batch)
    assert len(part_names(study.spec)) == len(parts)
    found = peak_of(parts, part_names(study.spec), accumulate=made.accumulate)
    assert sum(term.value or 0 for term in found.terms) == study.step.memory.step_bytes
    assert found.moment == study.step.memory.moment
    assert f"The peak is in {found.where}." in explain(made, "peak_bytes").notes


def test_operations_by_kind_take_as_long_as_the_step():
    made = plan(LLAMA, on=MACHINE, rows=2, context=32, batch_tokens=256)
    parts = made.study.parts(rows=2)
    found = operations(parts, MACHINE, accumulate=4, slower=1.5)
    assert sum(one.seconds for one in found) == pytest.approx(step_seconds(parts, MACHINE, accumulate=4, slower=1.5))
    assert [one.seconds for one in found] == sorted((one.seconds for one in found), reverse=True)


@pytest.mark.parametrize(
    ("work", "held_up_by"),
    [
        (
            Work(
                name="mm", dtype="bfloat16", size=(1024, 1024, 1024), flops=2**31, elements=2**20, moved_bytes=6 * 2**20
            ),
            "compute",
        ),
        (
            Work(name="mm", dtype="bfloat16", size=(1024, 1, 1024), flops=2**21, elements=2**20, moved_bytes=2**21),
            "memory",
        ),
        (Work(name="exp", dtype="bfloat16", size=(), flops=0, elements=2**20, moved_bytes=2**22), "compute"),
        (Work(name="add", dtype="float32", size=(), flops=0, elements=2**20, moved_bytes=12 * 2**20), "memory"),
        (Work(name="add", dtype="float32", size=(), flops=0, elements=8, moved_bytes=96), "launch"),
        (VIEW, "launch"),
    ],
)
def test_an_operation_is_held_up_by_what_takes_longest_in_it(work: Work, held_up_by: str):
    assert bound(work, MACHINE) == held_up_by


def test_the_loss_is_told_by_the_law_with_its_numbers():
    told = plan(LLAMA, on=MACHINE, tokens=1e15).explain("predicted_loss")
    assert told.with_numbers().startswith(
        f"1.81686 + 482.006 / {books.params(LLAMA):,} ** 0.34781 + 2,085.43 / 1e+15 **"
    )
    few = plan(LLAMA, on=MACHINE, tokens=1e6).explain("predicted_loss")
    assert few.total() is None and "was fitted to runs of 6.00 EFLOP or more" in few.notes[0]
    assert "every parameter takes part" in plan(EXPERTS, on=MACHINE, tokens=1e6).explain("predicted_loss").notes[0]


def test_a_price_is_told_with_its_date():
    told = plan(LLAMA, on="H100", tokens=1e9).explain("cost_usd")
    assert told.terms[-1].value == 3.9 and "2026-08-19" in told.terms[-1].source
    assert plan(LLAMA, on="H100", usd_per_hour=2, tokens=1e9).explain("cost_usd").terms[-1].source == "given"


def test_what_is_missing_is_said_with_the_way_to_give_it():
    made = plan(LLAMA, on=MACHINE)
    assert "give --watts" in str(made.explain("energy_kwh"))
    assert "give --region" in str(made.explain("co2_kg"))
    assert "give --usd-per-hour" in str(made.explain("cost_usd"))


def test_a_layout_is_told_with_the_next_best_one():
    laid = plan(LLAMA, **SHARED).explain("layout")
    assert laid.total() == 16
    assert any("the next, dp=" in note and "slower" in note for note in laid.notes)


def test_a_budgets_plan_is_explained_as_well():
    made = within(GPT2, budget="max_hours", amount=1e-3, on=MACHINE, rows=1)
    assert made.explain("train_seconds").total() == pytest.approx(made.train_seconds)


def test_a_plan_is_made_again_with_other_settings():
    made = plan(GPT2, on=MACHINE, rows=2, context=16, tokens=1e4)
    again = made.study.again(rows=4)
    assert (again.micro_batch, again.context, again.tokens >= 1e4) == (4, 16, True)
    assert made.study.again() == made


@pytest.mark.parametrize(
    ("figure", "says"),
    [("peak_byte", "did you mean 'peak_bytes'"), ("", "choose from params, ")],
)
def test_a_figure_that_is_not_there_is_refused_with_the_nearest(figure: str, says: str):
    with pytest.raises(ConfigError, match=says):
        plan(GPT2, on=MACHINE, rows=1).explain(figure)


def test_text_has_the_formula_with_numbers_and_the_terms():
    text = str(plan(GPT2, on=MACHINE, rows=2, context=16, tokens=1e4).explain("steps"))
    assert "steps = 313" in text
    assert "= ceil(text_tokens / batch_tokens)" in text
    assert "= ceil(10,000 / 32)" in text


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("a + b * c", 14),
        ("ceil(c / b) - -a", 4),
        ("max(a, min(b, c)) ** 2", 9),
        ("2 ** floor(log2(c))", 4),
        ("a <= b", True),
        ("round(c / b)", 1),
    ],
)
def test_formulas_are_arithmetic_over_names(formula: str, value: float):
    assert evaluate(formula, {"a": 2, "b": 3, "c": 4}) == value


@pytest.mark.parametrize("formula", ["missing + 1", "__import__('os')", "a.real", "[a]", "a if a else 1", "'x' * 9"])
def test_a_formula_that_is_no_arithmetic_is_refused(formula: str):
    with pytest.raises(ValueError, match="neither arithmetic nor the name of a term"):
        evaluate(formula, {"a": 2})


def test_a_derivation_that_drifted_is_found_out():
    told = Derivation(figure="x", value=3, terms=(Term(name="a", value=1), Term(name="b", value=1)), source="s")
    assert told.total() == 2 != told.value


def test_quantities_are_written_as_people_read_them():
    assert [written(2**30, "bytes"), written(0.25, "share"), written(None, "W"), written(True, "")] == [
        "1.00 GiB", "25%", "not known", "yes",
    ]  # fmt: skip
    assert [written(2e-6, "seconds"), written(90, "seconds")] == ["2 µs", "1 min 30 s"]
    assert [number(12345678.5), number(0.5), number(1e20), number(None)] == ["12,345,678", "0.5", "1e+20", "?"]
