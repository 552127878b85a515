"""Models compared on the same documents: better, worse, or nobody can tell."""

from __future__ import annotations

import math

import numpy as np
import pytest

from groundup.errors import DataError
from groundup.evals.paired import Paired

RANDOM = np.random.default_rng(7)
BYTES = RANDOM.integers(200, 5000, size=80).astype(float)
HARD = RANDOM.uniform(0.5, 2.5, size=80)  # bits per byte of each document, whoever reads it


def nats(above: float, *, seeds: int = 3, noise: float = 0.02) -> np.ndarray:
    """What a model needs that is so many bits per byte worse than the documents are hard."""
    return (HARD + above + RANDOM.normal(0, noise, size=(seeds, 80))) * BYTES * math.log(2)


def test_figure_is_the_mean_of_seeds_over_all_bytes():
    table = nats(0.0)
    found = Paired({"a": table}, BYTES).bits_per_byte("a")
    assert found.value == pytest.approx(table.mean(0).sum() / BYTES.sum() / math.log(2))
    assert found.low < found.value < found.high


def test_small_difference_on_the_same_documents_is_seen_though_documents_differ_much():
    pair = Paired({"a": nats(0.0), "b": nats(0.03)}, BYTES)
    assert pair.verdict("b", "a") == "worse" and pair.verdict("a", "b") == "better"
    both = pair.bits_per_byte("a"), pair.bits_per_byte("b")
    assert both[0].high > both[1].low  # their own intervals overlap by far
    found = pair.difference("b", "a")
    assert 0.02 < found.low < found.value < found.high < 0.04


def test_models_that_differ_by_chance_alone_are_rarely_told_apart():
    wrong = sum(Paired({"a": nats(0.0), "b": nats(0.0)}, BYTES).verdict("a", "b") != "cannot tell" for _ in range(60))
    assert wrong <= 12  # of 60; 3 are expected at 95%, more because three seeds say little of their spread


def test_seeds_that_differ_more_than_the_models_leave_it_open():
    shifts = np.array([[-0.1], [0.0], [0.1]]) * BYTES * math.log(2)
    pair = Paired({"a": nats(0.0) + shifts, "b": nats(0.02) + shifts}, BYTES)
    assert pair.verdict("a", "b") == "cannot tell"


def test_no_document_is_refused():
    with pytest.raises(DataError, match="no document to compare"):
        Paired({}, np.array([]))
