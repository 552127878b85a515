from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from groundup.data.corpus import TokenDocument
from groundup.errors import ConfigError, DataError
from groundup.evals import compressors
from groundup.evals.perplexity import Score, perplexity
from groundup.families.llama import llama
from groundup.text.train import train

VOCAB, END = 29, 28
MODEL = llama(width=16, layers=1, heads=2, hidden=24, vocab=VOCAB, context=16, deviation=0.5).build(seed=3)


def document(length: int, *, seed: int = 0) -> TokenDocument:
    ids = np.random.default_rng(seed).integers(0, END, length)
    return TokenDocument(name=str(length), text_bytes=3 * length, ids=np.append(ids, END))


def test_a_model_that_knows_nothing_needs_log2_of_its_vocabulary_a_token() -> None:
    blank = llama(width=16, layers=1, heads=2, hidden=24, vocab=VOCAB, context=16, deviation=0.0).build()
    score = perplexity(blank, [document(10), document(40)], begin=END)
    assert score.perplexity == pytest.approx(VOCAB)
    assert score.loss == pytest.approx(math.log(VOCAB))
    assert score.bits_per_byte == pytest.approx(52 * math.log2(VOCAB) / 150)
    assert (score.tokens, score.text_bytes, score.documents) == (52, 150, 2)


def by_hand(length: int, *, context: int, stride: int) -> float:
    """The definition: each token is predicted once, by the first window that reaches it."""
    ids = [END, *document(length).ids.tolist()]
    nats, counted = 0.0, 0
    for start in range(0, len(ids), stride):
        window = torch.tensor([ids[start : start + context + 1]])
        logp = MODEL(window[:, :-1]).log_softmax(-1)[0] if window.shape[1] > 1 else torch.zeros(0, VOCAB)
        for place in range(logp.shape[0]):
            if start + place >= counted:
                nats -= logp[place, window[0, place + 1]].item()
                counted += 1
    assert counted == len(ids) - 1
    return nats


@given(length=st.integers(1, 70), context=st.integers(2, 16), data=st.data())
def test_every_token_is_counted_once_with_the_most_context(length: int, context: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, context))
    score = perplexity(MODEL, [document(length)], begin=END, context=context, stride=stride, tokens_per_batch=64)
    assert score.tokens == length + 1
    assert score.nats == pytest.approx(by_hand(length, context=context, stride=stride), rel=1e-5)


def test_documents_and_batches_do_not_matter_to_each_other() -> None:
    several = [document(n, seed=n) for n in (1, 5, 33, 16, 15, 17)]
    together = perplexity(MODEL, several, begin=END, tokens_per_batch=50)
    alone = [perplexity(MODEL, [one], begin=END, tokens_per_batch=1) for one in several]
    assert together.nats == pytest.approx(sum(score.nats for score in alone), rel=1e-6)


@pytest.mark.parametrize(("context", "stride"), [(0, None), (-5, None), (17, None), (16, 0), (16, 17), (4, 5)])
def test_windows_that_leave_tokens_out_or_exceed_the_model_are_refused(context: int, stride: int | None) -> None:
    with pytest.raises(ConfigError, match="is not between 1 and"):
        perplexity(MODEL, [document(40)], begin=END, context=context, stride=stride)


def test_no_text_is_refused() -> None:
    with pytest.raises(DataError, match="no text to evaluate on"):
        perplexity(MODEL, [], begin=END)


def test_compressors_are_measured_on_the_stream_and_on_each_file() -> None:
    bits = compressors.bits_per_byte([b"abc" * 1000, bytes(range(256))])
    assert set(bits) == {"gzip -9, one stream", "bzip2 -9, one stream", "xz -9, one stream", "xz -9, each file"}
    assert all(0 < value < 8 for value in bits.values())
    assert bits["xz -9, each file"] > bits["xz -9, one stream"]


def test_compressors_stand_beside_the_score_of_a_short_text_that_comes_back_from_its_tokens() -> None:
    text = "so it goes, and so it goes on. " * 50
    words = train([text], vocab=270)
    read = [TokenDocument(name="a", text_bytes=len(text), ids=np.array([*words.encode(text), words.end]))]

    def score(text_bytes: int | None) -> Score:
        return Score(nats=1.0, tokens=1, text_bytes=text_bytes, documents=1)

    assert compressors.beside(score(len(text)), read, words) == compressors.bits_per_byte([text.encode()])
    for size in (None, len(text) + 1, compressors.MOST_BYTES + 1):
        assert compressors.beside(score(size), read, words) == {}
