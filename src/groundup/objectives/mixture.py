"""Several ways to make a source and a target of a text, one of them drawn for each row.

The usual mixture is UL2's: R, spans of 3 and 8 tokens of which 15 % are taken out, as in T5; X, longer spans or more
of them, up to half of the text; S, going on with a beginning. A special token tells the model which it is.

Source: Tay et al. 2023 (UL2, arXiv:2205.05131), section 3.1.2 and table 1.
"""

from __future__ import annotations

import numpy as np

from groundup.errors import SpecError
from groundup.objectives.objective import Ids, Reading
from groundup.objectives.prefix import PrefixLM
from groundup.objectives.rewriting import Lengths, Rewrite, Rewriting
from groundup.objectives.span_corruption import SpanCorruption

UL2 = (
    SpanCorruption(rate=0.15, length=3.0, mode="[R]"),
    SpanCorruption(rate=0.15, length=8.0, mode="[R]"),
    PrefixLM(share=0.25, mode="[S]"),
    SpanCorruption(rate=0.5, length=3.0, mode="[X]"),
    SpanCorruption(rate=0.5, length=8.0, mode="[X]"),
    SpanCorruption(rate=0.15, length=64.0, mode="[X]"),
    SpanCorruption(rate=0.5, length=64.0, mode="[X]"),
)


class Mixture(Rewriting):
    """Learns several objectives at once.

    Attributes:
        parts: the objectives.
        weights: how often each is drawn, beside the others; none means alike.
    """

    parts: tuple[Rewriting, ...] = UL2
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.parts or (self.weights and len(self.weights) != len(self.parts)):
            raise SpecError(f"a mixture of {len(self.parts)} parts has {len(self.weights)} weights; give one for each")
        if self.weights and not (min(self.weights) >= 0 and sum(self.weights) > 0):
            raise SpecError(f"weights={self.weights} cannot be drawn by; give numbers of at least 0, not all 0")

    @property
    def special(self) -> tuple[str, ...]:
        """Those of all parts."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part.special))

    def shares(self) -> list[float]:
        """Returns how often each part is drawn, as a share."""
        weights = self.weights or (1.0,) * len(self.parts)
        return [weight / sum(weights) for weight in weights]

    def lengths(self, text: int) -> Lengths:
        """Returns how long what is made of so many tokens of text is, by the part that makes the most of it."""
        made = [part.lengths(text) for part in self.parts]
        return Lengths(
            source=max(one.source for one in made),
            target=max(one.target for one in made),
            both=max(one.both for one in made),
            predicted=round(sum(share * one.predicted for share, one in zip(self.shares(), made, strict=True))),
        )

    def rewrite(self, reading: Reading, *, text: int) -> Rewrite:
        """Returns what makes a source and a target of a text by one of the parts.

        Raises:
            TextError: the tokenizer lacks a special token of a part.
        """
        made, shares = [part.rewrite(reading, text=text) for part in self.parts], self.shares()

        def drawn(ids: Ids, draw: np.random.Generator) -> tuple[Ids, Ids]:
            return made[draw.choice(len(made), p=shares)](ids, draw)

        return drawn
