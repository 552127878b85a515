"""Write a text anew from one in which spans are masked and sentences stand in another order.

    text     A cat sat down. It slept for an hour.
    source   It slept [MASK]. A [MASK] sat down. </s>
    target   A cat sat down. It slept for an hour. </s>

Spans of lengths that are drawn by Poisson's law are each replaced by one mask until a share of the tokens is gone; a
span of no token puts a mask between two. Sentences end with a token that ends with a full stop, a question mark or an
exclamation mark, or with a line.

Source: Lewis et al. 2020 (BART, arXiv:1910.13461), sections 2.2 and 5.1.
"""

from __future__ import annotations

import numpy as np

from groundup.errors import SpecError
from groundup.objectives.objective import MASK, Ids, Reading
from groundup.objectives.rewriting import Lengths, Rewrite, Rewriting
from groundup.specs import OneOrMore, Share, ShareBelowOne

ENDS = (".", "!", "?", "\n")  # of sentences


class Denoising(Rewriting):
    """Writes a text anew from one that was damaged.

    Attributes:
        rate: the share of tokens that is masked.
        length: the mean length of a span, in tokens.
        shuffled: the share of the texts whose sentences are put into another order.
    """

    rate: ShareBelowOne = 0.3
    length: OneOrMore = 3.0
    shuffled: Share = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rate and not self.shuffled:
            raise SpecError("rate=0 and shuffled=0 leave the text as it is; raise one of them")

    @property
    def special(self) -> tuple[str, ...]:
        """The mask."""
        return (MASK,)

    def lengths(self, text: int) -> Lengths:
        """Returns how long what is made of so many tokens of text is."""
        return Lengths(source=text + 1, target=text + 1, both=2 * text + 2, predicted=text + 1)

    def rewrite(self, reading: Reading, *, text: int) -> Rewrite:
        """Returns what damages a text.

        Raises:
            TextError: the tokenizer lacks the mask.
        """
        mask, words, end = np.array([reading.special(MASK, self)]), reading.tokenizer, np.array([reading.end])
        ends = np.array([words.decode([id]).endswith(ENDS) for id in range(words.vocab)])

        def made(ids: Ids, draw: np.random.Generator) -> tuple[Ids, Ids]:
            source = ids
            if draw.random() < self.shuffled:
                sentences = np.split(ids, np.flatnonzero(ends[ids][:-1]) + 1)
                source = np.concatenate([sentences[i] for i in draw.permutation(len(sentences))])
            return np.concatenate([self._masked(source, mask, draw), end]), np.concatenate([ids, end])

        return made

    def _masked(self, ids: Ids, mask: Ids, draw: np.random.Generator) -> Ids:
        """The text with spans replaced by a mask, not longer than it was."""
        sizes = self._sizes(round(self.rate * len(ids)), draw)
        kept = len(ids) - sizes.sum()
        if not len(sizes) or kept + len(sizes) > len(ids):
            sizes = sizes[sizes > 0]
        # The spans stand in the gaps of what is kept, in random order; two may share one.
        gaps = np.sort(draw.integers(kept + 1, size=len(sizes)))
        starts = gaps + np.cumsum(sizes) - sizes
        parts, last = [], 0
        for start, size in zip(starts, sizes, strict=True):
            parts += [ids[last:start], mask]
            last = start + size
        return np.concatenate([*parts, ids[last:]])

    def _sizes(self, tokens: int, draw: np.random.Generator) -> Ids:
        """Lengths of spans that have so many tokens together."""
        sizes: list[int] = []
        while tokens:
            size = min(int(draw.poisson(self.length)), tokens)
            sizes.append(size)
            tokens -= size
        return np.array(sizes, dtype=np.int64)
