from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import pytest

from groundup.context import NOT_COUNTED
from groundup.errors import ConfigError, SpecError
from groundup.families.llama import llama
from groundup.families.t5 import t5
from groundup.objectives.denoising import Denoising
from groundup.objectives.mixture import Mixture
from groundup.objectives.objective import Reading
from groundup.objectives.prefix import PrefixLM
from groundup.objectives.rewriting import Rewrite, Rewriting, arranged
from groundup.objectives.span_corruption import SENTINELS, SpanCorruption, sentinel
from groundup.text.train import train

TEXT = "A cat sat down.  It slept for an hour!  Did it dream? " * 30
SPECIAL = ["[MASK]", "[R]", "[S]", "[X]", *map(sentinel, range(SENTINELS))]
WORDS = train([TEXT], vocab=380, special=SPECIAL)
PAIR = t5(width=16, layers=1, heads=2, head_width=8, hidden=24, vocab=WORDS.vocab, context=64)
DECODER = llama(width=16, layers=1, heads=2, hidden=24, vocab=WORDS.vocab, context=64)
IDS = np.array(WORDS.encode(TEXT)[:100])


@cache
def rewrite(objective: Rewriting) -> Rewrite:
    return objective.rewrite(Reading(model=PAIR, tokenizer=WORDS, context=64, seed=0), text=len(IDS))


def rewritten(objective: Rewriting, ids: np.ndarray = IDS, *, seed: int = 0) -> tuple[list[int], list[int]]:
    source, target = rewrite(objective)(ids, np.random.default_rng(seed))
    return source.tolist(), target.tolist()


def put_back(source: list[int], target: list[int]) -> list[int]:
    """The text of which a source and a target were made by taking out spans."""
    marks = {WORDS.special[sentinel(i)] for i in range(SENTINELS)}
    spans: dict[int, list[int]] = {}
    for id in target[:-1]:
        if id in marks:
            spans[id] = []
        else:
            spans[list(spans)[-1]].append(id)
    return [back for id in source[:-1] for back in spans.get(id, [id])]


def test_lengths_are_those_of_t5() -> None:
    """The published pretraining: sources of 512 tokens, of 568 of text, with targets of 114."""
    made = SpanCorruption().shape(t5(width=16, layers=1, heads=2, hidden=24, vocab=400), 512)
    assert (made.text, made.source, made.ids, made.predicted) == (568, 512, 114, 114)
    assert SpanCorruption().counts(568) == (85, 28)
    assert SpanCorruption().counts(2) == (1, 1)


def test_two_tokens_of_text_by_hand() -> None:
    """One of two is taken out, and the first piece stays."""
    first, end = WORDS.special[sentinel(0)], WORDS.end
    assert rewritten(SpanCorruption(), IDS[:2]) == ([IDS[0], first, end], [first, IDS[1], end])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("objective", [SpanCorruption(), SpanCorruption(rate=0.5, length=8.0)])
def test_the_target_says_what_the_sentinels_stood_for(objective: SpanCorruption, seed: int) -> None:
    source, target = rewritten(objective, seed=seed)
    assert put_back(source, target) == IDS.tolist()
    lengths = objective.lengths(len(IDS))
    assert (len(source), len(target)) == (lengths.source, lengths.target)
    taken, spans = objective.counts(len(IDS))
    marks = [id for id in source if WORDS.is_special(id) and id != WORDS.end]
    assert marks == [WORDS.special[sentinel(i)] for i in range(spans)]
    assert len(target) == taken + spans + 1


def test_every_way_to_cut_is_as_likely() -> None:
    """Six tokens, two of them taken out in two spans: the spans are cut one way, the rest three ways."""
    objective = SpanCorruption(rate=1 / 3, length=1.0)
    assert objective.counts(6) == (2, 2)
    found = Counter(tuple(rewritten(objective, IDS[:6], seed=seed)[0]) for seed in range(3000))
    assert len(found) == 3
    assert all(abs(count - 1000) < 5 * (3000 * 2 / 9) ** 0.5 for count in found.values())


def test_more_spans_than_sentinels_are_refused() -> None:
    long = t5(width=16, layers=1, heads=2, hidden=24, vocab=WORDS.vocab, context=4096)
    reading = Reading(model=long, tokenizer=WORDS, context=4096, seed=0)
    with pytest.raises(ConfigError, match=r"there are 100 sentinels; lower context, or raise objective\.length"):
        SpanCorruption().batches(lambda step: pytest.fail("read"), reading)
    for objective in (SpanCorruption, Denoising):
        with pytest.raises(SpecError, match=r"has length=0\.5; expected a number of at least 1"):
            objective(length=0.5)
    with pytest.raises(SpecError, match="takes out nothing or all"):
        SpanCorruption(rate=1.0)
    with pytest.raises(ConfigError, match="has no room"):
        SpanCorruption().shape(PAIR, 2)


def test_a_text_is_damaged_and_the_target_is_whole() -> None:
    for seed in range(20):
        source, target = rewritten(Denoising(), seed=seed)
        assert target == [*IDS.tolist(), WORDS.end]
        assert len(source) <= len(target)
        kept = Counter(id for id in source if id != WORDS.mask)
        assert kept <= Counter(target)
        assert sum(kept.values()) - 1 == len(IDS) - round(0.3 * len(IDS))
        assert 0 < source.count(WORDS.mask or 0) <= 30


def test_sentences_change_places_and_stay_whole() -> None:
    text = "A cat sat down. It slept for an hour! Did it dream?"
    source, _ = rewritten(Denoising(rate=0.0), np.array(WORDS.encode(text)), seed=2)
    found = WORDS.decode(source[:-1])
    assert found != text
    assert all(sentence in found for sentence in ("A cat sat down.", " It slept for an hour!", " Did it dream?"))
    same, _ = rewritten(Denoising(rate=0.0, shuffled=1e-9), np.array(WORDS.encode(text)))
    assert WORDS.decode(same[:-1]) == text


def test_a_text_goes_on_after_its_beginning() -> None:
    shares = []
    for seed in range(200):
        source, target = rewritten(PrefixLM(share=0.25, mode="[S]"), seed=seed)
        assert source[0] == WORDS.special["[S]"]
        assert source[1:] + target == IDS.tolist()
        shares.append(len(target) / len(IDS))
    assert max(shares) <= 0.5
    assert abs(np.mean(shares) - 0.255) < 5 * np.std(shares) / 200**0.5


def test_parts_of_a_mixture_are_drawn_by_their_weights() -> None:
    modes = Counter(rewritten(Mixture(), seed=seed)[0][0] for seed in range(700))
    for mode, share in (("[R]", 2 / 7), ("[S]", 1 / 7), ("[X]", 4 / 7)):
        assert abs(modes[WORDS.special[mode]] - 700 * share) < 5 * (700 * share * (1 - share)) ** 0.5
    lone = Mixture(weights=(0, 0, 1, 0, 0, 0, 0))
    assert {rewritten(lone, seed=seed)[0][0] for seed in range(20)} == {WORDS.special["[S]"]}
    with pytest.raises(SpecError, match="give one for each"):
        Mixture(weights=(1.0,))


def test_a_decoder_reads_both_as_one_text_and_learns_the_target() -> None:
    shape = SpanCorruption().shape(DECODER, 20)
    batch = arranged([(np.array([5, 6, 7]), np.array([8, 9]))], model=DECODER, shape=shape, read=[4])
    assert batch.ids[0, :5].tolist() == [5, 6, 7, 8, 0]
    assert batch.targets[0, :5].tolist() == [NOT_COUNTED, NOT_COUNTED, 8, 9, NOT_COUNTED]
    assert batch.prefix is not None and batch.prefix.tolist() == [3]
    assert batch.read_tokens == 4


def test_an_encoder_decoder_writes_the_target_after_its_start() -> None:
    model = PAIR.replace(start=3)
    batch = arranged([(np.array([5, 6, 7]), np.array([8, 9]))], model=model, shape=SpanCorruption().shape(model, 20))
    assert batch.ids[0, :3].tolist() == [3, 8, 0]
    assert batch.targets[0, :3].tolist() == [8, 9, NOT_COUNTED]
    assert batch.source is not None and batch.source[0, :4].tolist() == [5, 6, 7, 0]
    assert batch.source_lengths is not None and batch.source_lengths.tolist() == [3]
