"""Beams that are wide enough find the best of all texts; each prompt's search is its own."""

from __future__ import annotations

import itertools

import pytest
import torch

from groundup.errors import GenerationError
from groundup.families.llama import llama
from groundup.infer.generate import steps
from groundup.infer.generation import Generation
from groundup.infer.language_model import LanguageModel
from groundup.infer.sample import Sampling
from groundup.text.train import train

VOCAB, END = 5, 4
MODEL = llama(
    width=16, layers=2, heads=2, kv_heads=1, hidden=24, vocab=VOCAB, context=16, tied=True, deviation=0.8
).build(seed=5)


def run(*rows: Generation, ends: tuple[int, ...] = (END,), most: int = 4, **settings: object) -> list[Generation]:
    for _ in steps(MODEL, rows, sampling=Sampling.from_dict(settings), max_new_tokens=most, ends=ends):
        pass
    return list(rows)


def best_of_all(prompt: list[int], *, most: int, penalty: float) -> list[int]:
    """Scores every text of up to ``most`` tokens that ends as it may."""
    scored = []
    for length in range(1, most + 1):
        for text in itertools.product(range(VOCAB), repeat=length):
            if END in text[:-1] or (length < most and text[-1] != END):
                continue
            with torch.no_grad():
                logprobs = MODEL.eval()(torch.tensor([prompt + list(text)]))[0, len(prompt) - 1 : -1].log_softmax(-1)
            total = logprobs.gather(1, torch.tensor(text)[:, None]).sum().item()
            scored.append((total / length**penalty, list(text)))
    return max(scored)[1]


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_beams_as_many_as_texts_find_the_best_of_all_texts(penalty: float):
    rows = [Generation(prompt_ids=prompt) for prompt in ([1, 2], [3], [0, 0, 2])]
    for row in run(*rows, most=3, beams=64, length_penalty=penalty, early_stopping="never"):
        assert row.ids == best_of_all(row.prompt_ids, most=3, penalty=penalty)


def test_searches_side_by_side_find_what_each_finds_alone():
    prompts = [[1, 2, 3, 0, 1], [3], [2, 2]]
    together = run(*(Generation(prompt_ids=prompt) for prompt in prompts), most=9, beams=3)
    for prompt, row in zip(prompts, together, strict=True):
        (alone,) = run(Generation(prompt_ids=prompt), most=9, beams=3)
        assert (row.ids, row.finish) == (alone.ids, alone.finish)


def test_a_text_that_fills_the_context_is_finished_by_it():
    rows = run(Generation(prompt_ids=[1] * 13), Generation(prompt_ids=[1]), ends=(), most=15, beams=2)
    assert [(len(row.ids), row.finish) for row in rows] == [(3, "context"), (15, "length")]


def test_logprobs_are_the_models_own():
    (row,) = run(Generation(prompt_ids=[1, 2], logprobs=[]), beams=3, repetition_penalty=1.5)
    logits = MODEL(torch.tensor([row.prompt_ids + row.ids]))[0, 1:-1].log_softmax(-1)
    expected = logits.gather(1, torch.tensor(row.ids)[:, None])[:, 0].tolist()
    assert row.logprobs == pytest.approx(expected, abs=1e-5)


def test_whoever_runs_the_search_can_end_a_row_between_its_tokens():
    rows = [Generation(prompt_ids=[1]), Generation(prompt_ids=[2])]
    for moved in steps(MODEL, rows, sampling=Sampling(beams=3), max_new_tokens=6):
        if len(moved[0].ids) == 2:
            moved[0].finish = "stop"
    assert [(len(row.ids), row.finish) for row in rows] == [(2, "stop"), (2, "stop")]


def test_the_text_of_the_winner_ends_before_a_stop_string():
    words = train(["abcd " * 9], kind="char")
    module = llama(width=16, layers=1, heads=2, hidden=24, vocab=words.vocab, context=24, deviation=0.9).build(seed=2)
    model = LanguageModel(module, tokenizer=words)
    free = model.generate("ab", max_new_tokens=8, beams=3)
    assert len(free) > 3
    assert model.generate("ab", max_new_tokens=8, beams=3, stop=free[2]) == free[: free.index(free[2])]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"beams": 0}, "beams=0 cannot be used"),
        ({"beams": 2, "temperature": 0.8}, "beams=2 looks for the likeliest text and temperature=0.8 draws one"),
        ({"length_penalty": 2.0}, "length_penalty=2.0 has no effect without beams"),
        ({"early_stopping": "never"}, "early_stopping=never has no effect without beams"),
        ({"beams": 2, "early_stopping": "sometimes"}, "choose False, True or 'never'"),
        ({"beams": 2, "length_penalty": 1e3}, "length_penalty=1000.0 cannot be used"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, object], said: str):
    with pytest.raises(GenerationError, match=said):
        Sampling.from_dict(settings)
