"""Go on with the beginning of a text: the beginning is read, and what follows is written.

Where the text is cut is drawn evenly. Source: Raffel et al. 2020 (T5, arXiv:1910.10683), section 3.2.3; the share:
Tay et al. 2023 (UL2, arXiv:2205.05131), section 3.1.2, S-denoising.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np

from groundup.objectives.objective import Ids, Reading
from groundup.objectives.rewriting import Lengths, Rewrite, Rewriting
from groundup.specs import Limit

UpToHalf = Annotated[float, Limit("a share above 0 and up to 0.5", lambda x: 0 < x <= 0.5)]


class PrefixLM(Rewriting):
    """Goes on with the beginning of a text.

    Attributes:
        share: the mean share of the text that is written; up to twice of it.
        mode: the name of a special token before the source, by which a model that learns several such objectives knows
            which is meant; empty for none.
    """

    share: UpToHalf = 0.5
    mode: str = ""

    @property
    def special(self) -> tuple[str, ...]:
        """The mode."""
        return tuple(filter(None, [self.mode]))

    def _most(self, text: int) -> int:
        """How many of so many tokens are written at most."""
        return min(max(round(2 * self.share * text), 1), text - 1)

    def lengths(self, text: int) -> Lengths:
        """Returns how long what is made of so many tokens of text is."""
        marks, most = int(bool(self.mode)), self._most(text)
        return Lengths(source=text - 1 + marks, target=most, both=text + marks, predicted=(most + 1) // 2)

    def rewrite(self, reading: Reading, *, text: int) -> Rewrite:
        """Returns what cuts a text.

        Raises:
            TextError: the tokenizer lacks the mode.
        """
        mode = np.array([reading.special(self.mode, self)] if self.mode else [], dtype=np.int64)

        def made(ids: Ids, draw: np.random.Generator) -> tuple[Ids, Ids]:
            cut = len(ids) - int(draw.integers(1, self._most(len(ids)) + 1))
            return np.concatenate([mode, ids[:cut]]), ids[cut:]

        return made
