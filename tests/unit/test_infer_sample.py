from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from groundup.errors import ConfigError, GenerationError, SpecError
from groundup.infer.sample import Sampling, draw, min_p, repetition_penalty, temperature, top_k, top_p

VOCAB = 23

rows_of_logits = st.tuples(st.integers(0, 2**32), st.sampled_from([0.1, 1.0, 5.0]), st.integers(1, 3)).map(
    lambda drawn: torch.randn(drawn[2], VOCAB, generator=torch.Generator().manual_seed(drawn[0])) * drawn[1]
)
shares = st.floats(0.01, 1.0)


def kept(logits: Tensor) -> Tensor:
    return logits > -math.inf


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def theirs(processor: Callable[..., Tensor], logits: Tensor, ids: Tensor | None = None) -> Tensor:
    return processor(torch.zeros(len(logits), 1, dtype=torch.int64) if ids is None else ids, logits.clone())


@settings(max_examples=30)
@given(rows_of_logits, st.integers(1, VOCAB + 3), shares, shares, st.floats(0.1, 3.0))
def test_filters_are_those_of_transformers(logits, count, mass, share, degree):
    from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    pairs = [
        (temperature(logits, degree=degree), TemperatureLogitsWarper(degree)),
        (top_k(logits, count=count), TopKLogitsWarper(count)),
        (top_p(logits, mass=mass), TopPLogitsWarper(mass)),
        (min_p(logits, share=share), MinPLogitsWarper(share)),
    ]
    for ours, processor in pairs:
        assert torch.equal(ours, theirs(processor, logits)), processor


@settings(max_examples=30)
@given(rows_of_logits, st.data(), st.floats(0.5, 2.0))
def test_repetition_penalty_is_that_of_transformers(logits, data, penalty):
    from transformers import RepetitionPenaltyLogitsProcessor

    ids = torch.tensor([data.draw(st.lists(st.integers(0, VOCAB - 1), min_size=4, max_size=4)) for _ in logits])
    seen = torch.zeros(logits.shape, dtype=torch.bool).scatter_(1, ids, True)
    ours = repetition_penalty(logits, seen=seen, penalty=penalty)
    assert torch.equal(ours, theirs(RepetitionPenaltyLogitsProcessor(penalty), logits, ids))


@settings(max_examples=30)
@given(rows_of_logits, st.data())
def test_chain_is_that_of_transformers(logits, data):
    from transformers import (
        MinPLogitsWarper,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    degree, count = data.draw(st.floats(0.1, 3)), data.draw(st.integers(1, VOCAB))
    mass, share = data.draw(shares), data.draw(shares)
    sampling = Sampling(temperature=degree, top_k=count, top_p=mass, min_p=share, repetition_penalty=1.3)
    ids = torch.tensor([[1, 2, 3]] * len(logits))
    expected = logits
    for processor in (
        RepetitionPenaltyLogitsProcessor(1.3),
        TemperatureLogitsWarper(degree),
        TopKLogitsWarper(count),
        TopPLogitsWarper(mass),
        MinPLogitsWarper(share),
    ):
        expected = theirs(processor, expected, ids)
    for change in sampling.chain(torch.zeros(logits.shape, dtype=torch.bool).scatter_(1, ids, True)):
        logits = change(logits)
    assert torch.equal(logits, expected)


@settings(max_examples=30)
@given(rows_of_logits, shares)
def test_filters_keep_the_likeliest_and_leave_what_they_keep(logits, share):
    for filtered in (top_k(logits, count=1), top_p(logits, mass=share), min_p(logits, share=share)):
        assert torch.equal(filtered.argmax(-1), logits.argmax(-1))
        assert torch.equal(filtered[kept(filtered)], logits[kept(filtered)])


@settings(max_examples=30)
@given(rows_of_logits, shares, st.integers(1, VOCAB))
def test_filters_treat_every_row_alone(logits, share, count):
    for change in (lambda x: top_k(x, count=count), lambda x: top_p(x, mass=share), lambda x: min_p(x, share=share)):
        assert torch.equal(change(logits), torch.cat([change(row[None]) for row in logits]))


def test_filters_by_hand():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    assert kept(top_k(logits, count=2)).tolist() == [[True, True, False, False]]
    assert kept(top_p(logits, mass=0.6)).tolist() == [[True, True, False, False]]
    assert kept(top_p(logits, mass=0.81)).tolist() == [[True, True, True, False]]
    assert kept(min_p(logits, share=0.25)).tolist() == [[True, True, True, False]]
    ties = torch.tensor([[1.0, 1.0, 0.0]])
    assert kept(top_k(ties, count=1)).tolist() == [[True, True, False]]


def test_greedy_takes_the_likeliest_and_draws_nothing():
    logits, noise = torch.tensor([[0.0, 3.0, 1.0]]), generators(0)
    before = noise[0].get_state()
    assert Sampling().choose(logits, noise=noise).tolist() == [1]
    assert torch.equal(noise[0].get_state(), before)
    seen = torch.tensor([[False, True, False]])
    assert Sampling(repetition_penalty=9.0).choose(logits, noise=noise, seen=seen).tolist() == [2]


def test_draws_follow_the_probabilities():
    chance = torch.tensor([0.5, 0.3, 0.2, 0.0])
    noise = generators(7)
    drawn = torch.cat([draw(chance.log()[None], noise=noise) for _ in range(4000)])
    shares = drawn.bincount(minlength=4) / 4000
    assert shares[3] == 0
    # Four standard deviations of a share of 4000 draws.
    assert (shares - chance).abs().max() < 4 * (0.25 / 4000) ** 0.5


def test_draw_of_a_row_depends_on_its_own_generator_alone():
    logits = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(1))
    together = draw(logits, noise=generators(5, 6, 7))
    assert together[1:2].tolist() == draw(logits[1:2], noise=generators(6)).tolist()
    same = draw(logits[:1].expand(3, -1), noise=generators(5, 5, 5))
    assert same[0] == same[1] == same[2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, "temperature=-1.0 cannot be used; choose 0, which takes the likeliest token, or"),
        ({"temperature": math.nan}, "temperature=nan; expected a finite number"),
        ({"temperature": math.inf}, "temperature=inf; expected a finite number"),
        ({"temperature": 1e-9}, "temperature=1e-09 cannot be used; .* at least 0.001"),
        ({"temperature": 1.0, "top_k": 0}, "top_k=0 cannot be used; .* leave it out"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p=0.0 cannot be used"),
        ({"temperature": 1.0, "top_p": 1.5}, "top_p=1.5 cannot be used; choose a number above 0 and up to 1"),
        ({"temperature": 1.0, "min_p": -0.1}, "min_p=-0.1 cannot be used"),
        ({"repetition_penalty": 0.0}, "repetition_penalty=0.0 cannot be used"),
        ({"seed": -1}, "seed=-1 cannot be used"),
        ({"top_k": 5}, "top_k=5 has no effect at temperature=0"),
        ({"top_p": 0.9}, "top_p=0.9 has no effect at temperature=0.*set a temperature, such as 1.0"),
    ],
)
def test_setting_that_cannot_be_used_is_refused(settings, message):
    with pytest.raises((GenerationError, SpecError), match=message):
        Sampling(**settings)


def test_settings_that_change_nothing_are_taken_and_cost_nothing():
    assert Sampling(top_p=1.0, min_p=0.0).greedy
    assert Sampling(temperature=1.0, top_p=1.0, min_p=0.0).chain() == []


def test_unknown_setting_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="no setting temprature; did you mean 'temperature'"):
        Sampling.from_dict({"temprature": 0.8})
