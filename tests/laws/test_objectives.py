"""Laws that every objective keeps, over models of each kind that can learn it."""

from __future__ import annotations

import dataclasses
from functools import cache

import pytest
import torch

from groundup.context import NOT_COUNTED, Batch
from groundup.errors import ConfigError, TextError
from groundup.model.heads import NoHead
from groundup.model.model import Model
from groundup.objectives.denoising import Denoising
from groundup.objectives.diffusion import MaskedDiffusion
from groundup.objectives.masked import Masked, WholeWords
from groundup.objectives.mixture import Mixture
from groundup.objectives.next_token import NextToken
from groundup.objectives.objective import Objective, Reading, Usual
from groundup.objectives.prefix import PrefixLM
from groundup.objectives.span_corruption import SpanCorruption
from groundup.objectives.translation import Translation
from groundup.objectives.usual import usual
from groundup.optim.optimizers import AdamW
from groundup.optim.schedules import Constant
from groundup.planner import books
from groundup.planner.measure import count_flops
from groundup.specs import Spec, override
from groundup.text.tokenizer import Tokenizer
from groundup.text.train import train
from groundup.training.budget import Steps
from groundup.training.steps import steps
from laws.examples import HAND_MADE

ROWS, CONTEXT = 4, 48
TEXT = "".join(f"A cat number {n} sat down. It slept; it dreamt, {n * n} times! " for n in range(40))

OBJECTIVES: dict[str, Objective] = {
    "next token": NextToken(),
    "masked": Masked(),
    "masked, whole words": Masked(rate=0.3, hidden=0.5, random=0.5, unit=WholeWords()),
    "diffusion": MaskedDiffusion(),
    "span corruption": SpanCorruption(),
    "span corruption, half": SpanCorruption(rate=0.5, length=2.0, mode="[X]"),
    "denoising": Denoising(),
    "prefix": PrefixLM(),
    "mixture": Mixture(),
    "pairs": Translation(),
    "mixture, weighted": Mixture(parts=(SpanCorruption(), Denoising(shuffled=0.5)), weights=(0.2, 0.8)),
}
USUAL = {"decoder": "NextToken", "encoder": "Masked", "pair": "SpanCorruption"}
KINDS = {"decoder": "sandwich", "encoder": "encoder", "pair": "pair"}


@cache
def tokenizer(*special: str) -> Tokenizer:
    return train([TEXT], kind="bpe", vocab=290 + len(special), special=special)


def model_of(kind: str, words: Tokenizer) -> Model:
    return HAND_MADE[KINDS[kind]].with_words(words.vocab + 3, end=words.end or 0)


def fitting() -> list[tuple[str, str]]:
    words = tokenizer()
    return [
        (name, kind)
        for name, objective in OBJECTIVES.items()
        for kind in KINDS
        if objective.misfit(model_of(kind, words)) is None
    ]


def text(words: Tokenizer, *, tokens: int, start: int = 0):
    """Rows of a text with documents in them, whose last row is filled up, as the loader gives them."""
    ids = torch.tensor([*words.encode(TEXT), words.end] * 9)

    def batch(step: int) -> Batch:
        first = 31 * step + start
        rows = torch.stack([ids[first + 7 * row :][: tokens + 1] for row in range(ROWS)])
        targets = rows[:, 1:].clone()
        targets[-1, tokens // 2 :] = NOT_COUNTED
        places = torch.arange(tokens).expand(ROWS, tokens)
        return Batch(ids=rows[:, :-1].clone(), targets=targets, segments=torch.zeros_like(places), positions=places)

    return batch


def pairs(words: Tokenizer):
    """Pairs as their loader gives them: sources and targets that end, padded to the longest."""

    def batch(step: int) -> Batch:
        ids = torch.tensor([words.encode(TEXT)[13 * step + 5 * row :][:20] for row in range(ROWS)])
        ids[:, -1] = words.end or 0
        targets = ids.flip(1).roll(-1, 1)
        targets[-1, 9:] = NOT_COUNTED
        lengths = torch.tensor([20, 18, 20, 9])
        return Batch(ids=targets.clamp(min=0), targets=targets, source=ids, source_lengths=lengths)

    return batch


def batches_of(name: str, kind: str, *, seed: int = 0):
    objective = OBJECTIVES[name]
    words = tokenizer(*objective.special)
    model = model_of(kind, words)
    reading = Reading(model=model, tokenizer=words, context=CONTEXT, seed=seed)
    read = pairs(words) if objective.pairs else text(words, tokens=objective.shape(model, CONTEXT).text)
    return objective.batches(read, reading)


def same(one: Batch, other: Batch) -> bool:
    pairs = [(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(Batch)]
    return all(a is b is None or torch.equal(a, b) for a, b in pairs)


every_fit = pytest.mark.parametrize(("name", "kind"), fitting())


def test_every_objective_is_held_to_the_laws() -> None:
    kinds = {cls for cls in Spec.kinds.values() if issubclass(cls, Objective)} - {Usual}
    assert {type(objective) for objective in OBJECTIVES.values()} == kinds
    assert {name for name, _ in fitting()} == set(OBJECTIVES)


@every_fit
def test_any_batch_can_be_had_again_without_those_before_it(name: str, kind: str) -> None:
    there = batches_of(name, kind)
    later = [there(step) for step in range(4)][3]
    assert same(batches_of(name, kind)(3), later)
    if name not in ("next token", "pairs"):  # which draw nothing
        assert not same(batches_of(name, kind, seed=1)(3), later)


@every_fit
def test_batches_are_as_large_as_was_told(name: str, kind: str) -> None:
    batch, model = batches_of(name, kind)(0), model_of(kind, tokenizer(*OBJECTIVES[name].special))
    shape = OBJECTIVES[name].shape(model, CONTEXT)
    source = 0 if batch.source is None else batch.source.shape[1]
    assert batch.ids.shape == batch.targets.shape
    assert (source > 0) == (kind == "pair")
    if OBJECTIVES[name].pairs:
        assert batch.ids.shape[1] <= shape.ids and source <= shape.source
    else:
        assert (batch.ids.shape[1], source) == (shape.ids, shape.source)
    assert shape.ids <= CONTEXT
    assert batch.read_tokens <= ROWS * shape.text


@every_fit
def test_padding_is_never_learnt(name: str, kind: str) -> None:
    """The last row has half as much text as the others, so no more than that counts."""
    batch = batches_of(name, kind)(0)
    counted = (batch.targets != NOT_COUNTED).sum(1)
    shape = OBJECTIVES[name].shape(model_of(kind, tokenizer(*OBJECTIVES[name].special)), CONTEXT)
    assert 0 < counted[-1] <= shape.text // 2 + 2


@every_fit
def test_accumulated_micro_batches_equal_the_large_batch(name: str, kind: str) -> None:
    objective, batches = OBJECTIVES[name], batches_of(name, kind)
    spec, parts = model_of(kind, tokenizer(*objective.special)), [batches(step) for step in range(3)]
    tensors = [f.name for f in dataclasses.fields(Batch) if getattr(parts[0], f.name) is not None]
    together = Batch(**{field: torch.cat([getattr(part, field) for part in parts]) for field in tensors})
    losses, norms = [], []
    for accumulate, made in ((3, parts.__getitem__), (1, lambda _: together)):
        model = spec.build(seed=1).double()
        run = steps(
            model, made, objective.loss, AdamW(lr=1e-3).build(model), Constant(), until=Steps(1), accumulate=accumulate
        )
        (step,) = run
        losses.append(step.loss)
        norms.append(step.gradient_norm)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert norms[0] == pytest.approx(norms[1], rel=1e-6)


@every_fit
def test_planned_operations_are_those_of_a_step(name: str, kind: str) -> None:
    objective = OBJECTIVES[name]
    spec = model_of(kind, tokenizer(*objective.special))
    row = batches_of(name, kind)(0).first_rows(1)
    model = spec.build()
    counted = int(((row.targets != NOT_COUNTED) & (1 if row.weights is None else row.weights > 0)).sum())
    shape = dataclasses.replace(objective.shape(spec, CONTEXT), predicted=counted, ids=row.ids.shape[1])
    if row.source is not None:
        shape = dataclasses.replace(shape, source=row.source.shape[1])
    flops = count_flops(lambda: objective.loss(model, row).total.backward())
    assert flops == (1 + books.BACKWARD_PER_FORWARD) * books.forward_flops(spec, shape)


@pytest.mark.parametrize("name", [name for name, objective in OBJECTIVES.items() if objective.special])
def test_a_tokenizer_without_the_special_tokens_is_refused_in_one_sentence(name: str) -> None:
    objective, words = OBJECTIVES[name], tokenizer()
    kind = next(kind for one, kind in fitting() if one == name)
    model = model_of(kind, words)
    with pytest.raises(TextError, match=r"has no special token .*, which objective=\w+ needs; leave data.tokenizer"):
        objective.batches(text(words, tokens=CONTEXT), Reading(model=model, tokenizer=words, context=CONTEXT, seed=0))


@pytest.mark.parametrize("kind", KINDS)
def test_the_usual_objective_of_a_kind_can_be_learnt_and_others_are_refused(kind: str) -> None:
    model = model_of(kind, tokenizer())
    usual(model).check(model)
    assert type(usual(model)).__name__ == USUAL[kind]
    for objective in OBJECTIVES.values():
        if objective.misfit(model):
            with pytest.raises(
                ConfigError, match=f"objective={type(objective).__name__} cannot train the model, which"
            ):
                objective.check(model)


@pytest.mark.parametrize(("name", "kind"), fitting())
def test_a_model_without_a_head_is_refused(name: str, kind: str) -> None:
    model = model_of(kind, tokenizer())
    path = "decoder.head" if "decoder" in model.stacks else "head"
    with pytest.raises(ConfigError, match="has no head that predicts tokens; choose another objective or model"):
        OBJECTIVES[name].check(override(model, path, NoHead()))
