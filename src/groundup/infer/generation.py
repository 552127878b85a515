"""A prompt with what has been made of it, and when it ends."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

Finish = Literal["end", "stop", "length", "context"]


@dataclass(eq=False, kw_only=True)
class Generation:
    """A prompt and what has been made of it.

    Attributes:
        prompt_ids: the prompt, at least one token.
        source_ids: the text that an encoder reads first; empty for models without one.
        ids: the new tokens in order, an end token and the tokens of a stop string included.
        text: the new text, up to the end token or the stop string; empty where there is no tokenizer.
        finish: why it ended: an end token, a stop string, the length that was asked for, or the model's context.
            None while it goes on.
        seed: of this row's draws; None means the sampling's.
        logprobs: the model's log-probability of each new token, before any change by the sampling. Start with an
            empty list to have them; None leaves them out.
    """

    prompt_ids: list[int]
    source_ids: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    text: str = ""
    finish: Finish | None = None
    seed: int | None = None
    logprobs: list[float] | None = None

    def followed_by(self, ids: Sequence[int]) -> Generation:
        """Returns the prompt with more tokens, of which nothing has been made."""
        return Generation(prompt_ids=[*self.prompt_ids, *ids], source_ids=self.source_ids)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When rows end, and which tokens stand where.

    Attributes:
        most: the most new tokens of a row.
        context: the most tokens of a row, its prompt included.
        ends: tokens that end a row.
        first: the token that every row begins with; None means any.
        last: the token of a row that is as long as it may be; None means any.
    """

    most: int
    context: int
    ends: Collection[int]
    first: int | None = None
    last: int | None = None

    def room(self, row: Generation) -> int:
        """Returns how many new tokens a row may have."""
        return min(self.most, self.context - len(row.prompt_ids))

    def given(self, row: Generation, place: int) -> int | None:
        """Returns the token that stands at a place of a row's new ones whatever the model says; None: there is none."""
        if self.last is not None and place == self.room(row) - 1:
            return self.last
        return self.first if place == 0 else None

    def finish(self, row: Generation, *, length: int, newest: int) -> Finish | None:
        """Returns why a row ends with its newest token, which makes ``length`` new ones; None while it goes on."""
        if newest in self.ends:
            return "end"
        if length >= self.most:
            return "length"
        return "context" if length >= self.room(row) else None
