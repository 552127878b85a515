"""Write what was taken out: spans of the text are replaced by sentinels, and the target says what each stood for.

    text     Thank you for inviting me to your party last week
    source   Thank you <extra_id_0> me to your party <extra_id_1> week </s>
    target   <extra_id_0> for inviting <extra_id_1> last </s>

Of n tokens, a = round(rate n) are taken out in s = round(a / length) spans; where they lie is drawn evenly among all
ways to cut them and the rest into s pieces each, a piece of the rest first. So a source has n - a + s + 1 tokens and a
target a + s + 1, of each row alike: 512 tokens of source come from 568 of text and have targets of 114.

Source: Raffel et al. 2020 (T5, arXiv:1910.10683), section 3.1.4, and the lengths of their published code.
"""

from __future__ import annotations

import numpy as np

from groundup.errors import ConfigError, SpecError
from groundup.objectives.objective import Ids, Reading
from groundup.objectives.rewriting import Lengths, Rewrite, Rewriting
from groundup.specs import OneOrMore, Share

SENTINELS = 100


def sentinel(number: int) -> str:
    """Returns the name of the special token that stands for a span."""
    return f"<extra_id_{number}>"


class SpanCorruption(Rewriting):
    """Writes the spans of a text that were taken out.

    Attributes:
        rate: the share of tokens that is taken out.
        length: the mean length of a span.
        mode: the name of a special token before the source, by which a model that learns several such objectives knows
            which is meant; empty for none.
    """

    rate: Share = 0.15
    length: OneOrMore = 3.0
    mode: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.rate < 1:
            raise SpecError(f"rate={self.rate} takes out nothing or all; choose a share between, such as 0.15")

    @property
    def special(self) -> tuple[str, ...]:
        """The sentinels, and the mode."""
        return (*filter(None, [self.mode]), *map(sentinel, range(SENTINELS)))

    def counts(self, text: int) -> tuple[int, int]:
        """Returns how many of so many tokens are taken out, and in how many spans."""
        taken = min(max(round(self.rate * text), 1), text - 1)
        return taken, min(max(round(taken / self.length), 1), taken, text - taken)

    def lengths(self, text: int) -> Lengths:
        """Returns how long what is made of so many tokens of text is."""
        taken, spans = self.counts(text)
        source, target = bool(self.mode) + text - taken + spans + 1, taken + spans + 1
        return Lengths(source=source, target=target, both=source + target, predicted=target)

    def rewrite(self, reading: Reading, *, text: int) -> Rewrite:
        """Returns what takes out spans.

        Raises:
            TextError: the tokenizer lacks a sentinel or the mode.
            ConfigError: there are more spans than sentinels.
        """
        _, most = self.counts(text)
        if most > SENTINELS:
            raise ConfigError(
                f"{text} tokens of text have {most} spans, and there are {SENTINELS} sentinels; "
                "lower context, or raise objective.length"
            )
        marks = np.array([reading.special(sentinel(i), self) for i in range(most)])
        mode = np.array([reading.special(self.mode, self)] if self.mode else [], dtype=np.int64)
        end = np.array([reading.end])

        def made(ids: Ids, draw: np.random.Generator) -> tuple[Ids, Ids]:
            taken, spans = self.counts(len(ids))
            sizes = [_pieces(len(ids) - taken, spans, draw), _pieces(taken, spans, draw)]
            parts = np.split(ids, np.cumsum(np.stack(sizes, 1).ravel())[:-1])
            both = list(zip(parts[::2], parts[1::2], np.split(marks[:spans], spans), strict=True))
            source = [part for kept, _, mark in both for part in (kept, mark)]
            target = [part for _, taken_out, mark in both for part in (mark, taken_out)]
            return np.concatenate([mode, *source, end]), np.concatenate([*target, end])

        return made


def _pieces(items: int, count: int, draw: np.random.Generator) -> Ids:
    """The sizes of so many pieces into which items are cut, each way to cut them as likely as the others."""
    cuts = np.sort(draw.choice(items - 1, count - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [items]]))
