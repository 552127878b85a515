"""Beam search: the W likeliest beginnings of each text are followed side by side, and the best that ends is taken.

    score(y) = sum_t log p(y_t | y_<t, x) / |y|^a

Source: the length |y| to a power, Wu et al. 2016 (arXiv:1609.08144), section 7, in the simpler form of transformers,
whose order and edge cases these are, so that settings mean the same in both. Letters: W beams, P prompts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from groundup.infer.generation import Generation, Limits
from groundup.infer.sample import Sampling
from groundup.infer.search import given


@dataclass(frozen=True, kw_only=True)
class Path:
    """A beginning of a text.

    Attributes:
        ids: its tokens.
        logprobs: the model's log-probability of each.
        score: their sum, with what the sampling makes of them.
        parent: the state row that read all but the last token.
    """

    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    score: float = 0.0
    parent: int = 0


@dataclass
class Contest:
    """The paths of one prompt.

    Attributes:
        row: where the winner goes.
        open: the W paths that go on, best first.
        done: up to W paths that have ended, best first, with their scores for their length.
    """

    row: Generation
    open: list[Path]
    done: list[tuple[float, Path]] = field(default_factory=list)

    def advance(self, paths: list[Path], *, sampling: Sampling, limits: Limits) -> None:
        """Takes longer paths, best first: the W best that go on, and those of the W best that end."""
        ended = [limits.finish(self.row, length=len(p.ids), newest=p.ids[-1]) is not None for p in paths]
        self.open = [path for path, over in zip(paths, ended, strict=True) if not over][: sampling.beams]
        for path, over in list(zip(paths, ended, strict=True))[: sampling.beams]:
            if over and path.score > -math.inf:
                self.done.append((path.score / len(path.ids) ** sampling.length_penalty, path))
        self.done.sort(key=lambda scored: -scored[0])
        del self.done[sampling.beams :]

    def decided(self, *, sampling: Sampling, limits: Limits) -> bool:
        """Returns whether no path that goes on is followed any longer."""
        if not self.open:
            return True
        if len(self.done) < sampling.beams:
            return False
        if sampling.early_stopping is True:
            return True
        best, power = self.open[0], sampling.length_penalty
        longest = sampling.early_stopping == "never" and power > 0
        length = limits.room(self.row) if longest else len(best.ids)
        return best.score / length**power <= self.done[-1][0]

    def tell(self, *, limits: Limits) -> Iterator[list[Generation]]:
        """Gives the row the tokens of the best path, one at a time."""
        best = self.done[0][1]
        for id, logprob in zip(best.ids, best.logprobs, strict=True):
            self.row.ids.append(id)
            if self.row.logprobs is not None:
                self.row.logprobs.append(logprob)
            self.row.finish = limits.finish(self.row, length=len(self.row.ids), newest=id)
            yield [self.row]
            if self.row.finish is not None:
                return


class Beams:
    """Paths of each row that compete; a row gets all its tokens when its winner is known."""

    def __init__(self, rows: Sequence[Generation], *, sampling: Sampling, limits: Limits, device: torch.device) -> None:
        self.sampling, self.limits, self.device = sampling, limits, device
        others = [Path(score=-math.inf)] * (sampling.beams - 1)  # until the first step tells the paths apart
        self.contests = [Contest(row=row, open=[Path(), *others]) for row in rows]

    def advance(self, logits: Float[Tensor, "R V"], *, held: Bool[Tensor, "R V"]) -> Iterator[list[Generation]]:
        """Makes every path longer, and yields the rows whose winner is known."""
        for contest, paths in zip(self.contests, self._longer(logits, held), strict=True):
            contest.advance(paths, sampling=self.sampling, limits=self.limits)
        for contest in self.contests:
            if contest.decided(sampling=self.sampling, limits=self.limits):
                yield from contest.tell(limits=self.limits)

    def _longer(self, logits: Float[Tensor, "R V"], held: Bool[Tensor, "R V"]) -> list[list[Path]]:
        """Returns the likeliest longer paths of each prompt, best first: W that go on whatever tokens end are there."""
        open = [(contest.row, path) for contest in self.contests for path in contest.open]
        sure = logits.log_softmax(-1)
        scores = given(sure, [self.limits.given(row, len(path.ids)) for row, path in open])
        for change in self.sampling.chain(held):
            scores = change(scores)
        scores = scores + torch.tensor([[path.score] for _, path in open], device=self.device, dtype=scores.dtype)
        beams, vocab = self.sampling.beams, logits.shape[1]
        every = scores.unflatten(0, (-1, beams)).flatten(1)  # (P, W V)
        count = min(max(2, 1 + len(self.limits.ends)) * beams, every.shape[1])
        best, place = every.topk(count)
        logprobs = sure.unflatten(0, (-1, beams)).flatten(1).gather(1, place)
        found = zip(best.tolist(), place.tolist(), logprobs.tolist(), strict=True)
        made: list[list[Path]] = []
        for prompt, columns in enumerate(found):
            made.append([])
            for score, at, logprob in zip(*columns, strict=True):
                parent = prompt * beams + at // vocab
                before = open[parent][1]
                ids, sums = (*before.ids, at % vocab), (*before.logprobs, logprob)
                made[-1].append(Path(ids=ids, logprobs=sums, score=score, parent=parent))
        return made

    def going(self) -> tuple[list[int], Int[Tensor, "R"]]:
        """Returns the paths that go on of the rows whose winner is not known, and drops the other rows."""
        self.contests = [contest for contest in self.contests if contest.row.finish is None]
        open = [path for contest in self.contests for path in contest.open]
        newest = torch.tensor([path.ids[-1] for path in open], dtype=torch.int64, device=self.device)
        return [path.parent for path in open], newest

    def texts(self) -> list[Generation]:
        """Returns the texts of the paths that go on."""
        return [contest.row.followed_by(path.ids) for contest in self.contests for path in contest.open]

    def lengths(self) -> list[int]:
        """Returns how many tokens these texts have."""
        return [len(contest.row.prompt_ids) + len(path.ids) for contest in self.contests for path in contest.open]
