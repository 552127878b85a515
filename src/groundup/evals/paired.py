"""Which of two models predicts a text better, and how sure that is: a bootstrap over documents and seeds.

Documents differ much more among themselves than models do on one of them, so models are compared on the same
documents: in each of many drawn sets of documents (the same set for both) and of seeds (each model's own), both give
their bits per byte, and the spread of the difference says what chance can do. Source: Efron and Tibshirani 1993, An
Introduction to the Bootstrap, chapters 13 and 16; on seeds, Bouthillier et al. 2021 (arXiv:2103.03098).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from groundup.errors import DataError

DRAWS = 4000
Verdict = Literal["better", "worse", "cannot tell"]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure and where it lies with the confidence that was asked for."""

    value: float
    low: float
    high: float


class Paired:
    """The bits per byte of several models on the same documents, each trained with several seeds.

    Args:
        nats: of each model, the summed cross-entropy of each document by seed, (seeds, documents).
        text_bytes: the length of each document.

    Raises:
        DataError: there is no document.
    """

    def __init__(
        self,
        nats: dict[str, Float[ndarray, "seeds documents"]],
        text_bytes: Float[ndarray, "documents"],
        *,
        seed: int = 0,
    ) -> None:
        if not len(text_bytes):
            raise DataError("there is no document to compare models on; hold some text out")
        random = np.random.default_rng(seed)
        weights = random.multinomial(len(text_bytes), np.full(len(text_bytes), 1 / len(text_bytes)), size=DRAWS)
        bits = weights @ text_bytes * math.log(2)  # (draws,)
        self.means = {name: float(table.mean(0).sum() / text_bytes.sum() / math.log(2)) for name, table in nats.items()}
        self.drawn: dict[str, Float[ndarray, "draws"]] = {}
        for name, table in nats.items():
            chosen = random.integers(len(table), size=(DRAWS, len(table)))
            by_seed = np.stack([weights @ row for row in table], 1)  # (draws, seeds)
            self.drawn[name] = np.take_along_axis(by_seed, chosen, 1).mean(1) / bits

    def bits_per_byte(self, name: str, *, confidence: float = 0.95) -> Interval:
        """Returns a model's bits per byte."""
        return _interval(self.means[name], self.drawn[name], confidence)

    def difference(self, name: str, other: str, *, confidence: float = 0.95) -> Interval:
        """Returns by how much a model's bits per byte lie above another's."""
        return _interval(self.means[name] - self.means[other], self.drawn[name] - self.drawn[other], confidence)

    def verdict(self, name: str, other: str, *, confidence: float = 0.95) -> Verdict:
        """Returns whether a model is better than another, beyond what chance can do."""
        found = self.difference(name, other, confidence=confidence)
        return "better" if found.high < 0 else "worse" if found.low > 0 else "cannot tell"


def _interval(value: float, drawn: Float[ndarray, "draws"], confidence: float) -> Interval:
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value=value, low=float(low), high=float(high))
