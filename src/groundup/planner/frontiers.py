"""The sizes that make the best use of operations, read off runs without a law of their loss: N = G C^a.

Approaches 1 and 2 of Hoffmann et al. 2022 (arXiv:2203.15556, sections 3.1 and 3.2): which run's curve is lowest after
so many operations, and where the parabola through runs of equal operations has its lowest point. Approach 1 reads
losses whose learning rate has not come down yet, as theirs did.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from groundup.planner.scaling import FLOPS_PER_PARAM_TOKEN

SAME_FLOPS = 1.15  # between neighbours, up to which runs are taken to have equal operations
BUDGETS = 200  # at which the envelope is read
LEAST_BEST = 3  # different best sizes, which a line needs to show how straight it is


@dataclass(frozen=True, kw_only=True)
class Point:
    """A finished run as a law sees it.

    Attributes:
        name: of the run.
        params: that a token uses, embeddings counted.
        tokens: that it was trained on.
        loss: what it came to, in nats per token.
        curve: tokens and losses on the way; empty where nobody knows them.
    """

    name: str
    params: float
    tokens: float
    loss: float
    curve: tuple[tuple[float, float], ...] = ()

    @property
    def flops(self) -> float:
        """The operations of its training, by the law's own rule, 6 N D."""
        return FLOPS_PER_PARAM_TOKEN * self.params * self.tokens


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """The best parameters as a power of the operations.

    Attributes:
        name: the approach.
        exponent: a.
        factor: G.
        count: how many of ``what`` it is drawn through.
        what: what they are.
    """

    name: str
    exponent: float
    factor: float
    count: int
    what: str


def envelope(runs: Sequence[Point]) -> Frontier | None:
    """Returns approach 1, the sizes whose curves are lowest; None where fewer than three sizes ever are.

    Operations at which the smallest or the largest size is best are left out: a still smaller or larger one might be.
    """
    curves = [
        (run.params, np.log([FLOPS_PER_PARAM_TOKEN * run.params * tokens for tokens, _ in run.curve]),
         [loss for _, loss in run.curve])
        for run in runs
        if len(run.curve) > 1
    ]  # fmt: skip
    if len({params for params, _, _ in curves}) < LEAST_BEST:
        return None
    low, high = min(flops[0] for _, flops, _ in curves), max(flops[-1] for _, flops, _ in curves)
    best = []
    for at in np.linspace(low, high, BUDGETS):
        reached = [
            (float(np.interp(at, flops, losses)), params)
            for params, flops, losses in curves
            if flops[0] <= at <= flops[-1]
        ]
        sizes = [params for _, params in reached]
        if reached and min(sizes) < (params := min(reached)[1]) < max(sizes):
            best.append((at, math.log(params)))
    if len({size for _, size in best}) < LEAST_BEST:
        return None
    return _line(best, name="approach 1 (envelope of training curves)", count=len({size for _, size in best}),
                 what="sizes that are best somewhere")  # fmt: skip


def valleys(runs: Sequence[Point]) -> Frontier | None:
    """Returns approach 2, the lowest points of parabolas; None where fewer than two groups of runs have one."""
    ordered = sorted(runs, key=lambda run: run.flops)
    groups: list[list[Point]] = []
    for run in ordered:
        if groups and run.flops <= SAME_FLOPS * groups[-1][-1].flops:
            groups[-1].append(run)
        else:
            groups.append([run])
    best = [point for group in groups if (point := _lowest(group)) is not None]
    if len(best) < 2 or best[0][0] == best[-1][0]:
        return None
    return _line(best, name="approach 2 (runs of equal operations)", count=len(best), what="groups with a lowest point")


def _lowest(group: Sequence[Point]) -> tuple[float, float] | None:
    """The logarithms of the group's operations and of its best size; None without a valley among its sizes."""
    sizes = [math.log(run.params) for run in group]
    if len(set(sizes)) < 3:
        return None
    middle = sum(sizes) / len(sizes)
    bend, slope, _ = np.polyfit([size - middle for size in sizes], [run.loss for run in group], 2)
    if bend <= 0:
        return None
    size = middle - slope / (2 * bend)
    if not min(sizes) <= size <= max(sizes):
        return None
    return sum(math.log(run.flops) for run in group) / len(group), float(size)


def _line(best: Sequence[tuple[float, float]], *, name: str, count: int, what: str) -> Frontier:
    slope, offset = np.polyfit([flops for flops, _ in best], [size for _, size in best], 1)
    return Frontier(name=name, exponent=float(slope), factor=math.exp(offset), count=count, what=what)
