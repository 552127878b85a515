"""Which continuations of the rows are followed: a token of each, or several that compete (`groundup.infer.beams`)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from groundup.infer.generation import Generation, Limits
from groundup.infer.sample import Sampling


class Search(Protocol):
    """What the loop of generation asks."""

    def advance(self, logits: Float[Tensor, "R V"], *, held: Bool[Tensor, "R V"]) -> Iterator[list[Generation]]:
        """Takes the logits after every state row, and yields the rows that got a token, as often as they get one.

        Args:
            logits: of the next token.
            held: which tokens each state row holds already.
        """
        ...

    def going(self) -> tuple[list[int], Int[Tensor, "R"]]:
        """Returns the state rows to go on from, in order and some perhaps twice, and the token that each reads."""
        ...

    def texts(self) -> list[Generation]:
        """Returns all that each of these rows will have read, as prompts."""
        ...

    def lengths(self) -> list[int]:
        """Returns how many tokens these texts have."""
        ...


class Draws:
    """A token of each row, drawn or the likeliest."""

    def __init__(self, rows: Sequence[Generation], *, sampling: Sampling, limits: Limits, device: torch.device) -> None:
        self.rows = list(rows)
        self.sampling, self.limits = sampling, limits
        seeds = [sampling.seed if row.seed is None else row.seed for row in rows]
        self.noise = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def advance(self, logits: Float[Tensor, "R V"], *, held: Bool[Tensor, "R V"]) -> Iterator[list[Generation]]:
        """Adds a token to each row."""
        bound = given(logits, [self.limits.given(row, len(row.ids)) for row in self.rows])
        self.chosen = self.sampling.choose(bound, noise=self.noise, seen=held)
        for row, id in zip(self.rows, self.chosen.tolist(), strict=True):
            row.ids.append(id)
            row.finish = self.limits.finish(row, length=len(row.ids), newest=id)
        if any(row.logprobs is not None for row in self.rows):
            sure = logits.log_softmax(-1).gather(1, self.chosen[:, None])[:, 0]
            for row, logprob in zip(self.rows, sure.tolist(), strict=True):
                if row.logprobs is not None:
                    row.logprobs.append(logprob)
        yield self.rows

    def going(self) -> tuple[list[int], Int[Tensor, "R"]]:
        """Returns the rows without a finish, and drops the others."""
        kept = [i for i, row in enumerate(self.rows) if row.finish is None]
        if len(kept) == len(self.rows):
            return kept, self.chosen
        self.rows, self.noise = [self.rows[i] for i in kept], [self.noise[i] for i in kept]
        return kept, self.chosen[torch.tensor(kept, dtype=torch.int64, device=self.chosen.device)]

    def texts(self) -> list[Generation]:
        """Returns the texts of the rows without a finish."""
        return [row.followed_by(row.ids) for row in self.rows]

    def lengths(self) -> list[int]:
        """Returns how many tokens these texts have."""
        return [len(row.prompt_ids) + len(row.ids) for row in self.rows]


def given(scores: Float[Tensor, "R V"], tokens: Sequence[int | None]) -> Float[Tensor, "R V"]:
    """Returns logits or log-probabilities in which rows with a given token leave no other."""
    if all(token is None for token in tokens):
        return scores
    scores = scores.clone()
    for row, token in enumerate(tokens):
        if token is not None:
            scores[row] = -math.inf
            scores[row, token] = 0.0
    return scores
