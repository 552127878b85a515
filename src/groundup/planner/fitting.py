"""A scaling law of one's own, fitted to the losses of a ladder of small runs.

    L(N, D) = E + A / N^alpha + B / D^beta                      nats per token, N parameters, D tokens
    minimise  sum over runs of Huber(log L(N, D) - log measured), delta = 1e-3

The three ways are those of Hoffmann et al. 2022 (arXiv:2203.15556): the envelope of training curves (section 3.1), the
valleys of runs of equal operations (3.2), and the law above (3.3, appendix D.2), fitted from a grid of starts. The
losses of runs are summed, not averaged, and every start goes on until nothing changes: Besiroglu et al. 2024
(arXiv:2404.10102) found that the mean ended too early. Where they used L-BFGS, here all starts go together by
reweighted least squares with damping (Huber 1964, doi:10.1214/aoms/1177703732; Marquardt 1963, doi:10.1137/0111030).
Intervals hold 95% of fits to runs drawn anew with replacement, as theirs do.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from groundup.errors import ConfigError
from groundup.planner import units
from groundup.planner.frontiers import Frontier, Point, envelope, valleys
from groundup.planner.scaling import Parametric
from groundup.planner.table import aligned

DELTA = 1e-3  # of the Huber loss: Hoffmann et al. 2022, appendix D.2
# The grid of starts, of the same appendix: logarithms of A, B and E, then alpha and beta.
GRID = ((0.0, 5.0, 10.0, 15.0, 20.0, 25.0),) * 2 + ((-1.0, -0.5, 0.0, 0.5, 1.0),) + ((0.0, 0.5, 1.0, 1.5, 2.0),) * 2
LOWEST, HIGHEST = (-10.0, -10.0, -12.0, 0.0, 0.0), (60.0, 60.0, 4.0, 3.0, 3.0)  # where a start may go
LEAST_RUNS = 6  # five constants, and one run that shows how wrong they are
LEAST_SIZES = 3  # of N and of D: a term of the law has two constants, and E is common
DRAWS = 400  # fits to runs drawn anew; Besiroglu et al. 2024 made 4,000
ROUNDS = ((8, 500), (40, 20), (500, 1))  # of descent, and how many of the best starts go on after them
DRAW_ROUNDS = 80  # the same for runs drawn anew, which start nearer
NAMES = ("E", "A", "B", "alpha", "beta", "a", "b")


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure and where 95% of the drawn fits have it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A law, and how sure it is.

    Attributes:
        law: the constants.
        points: the runs, by operations.
        constants: E, A, B, alpha and beta, and the powers a and b of the operations with which the best parameters and
            tokens grow, each with its interval.
        draws: the laws that were fitted to runs drawn anew.
        frontiers: what approaches 1 and 2 say of the best sizes, where the runs allow them.
        objective: the sum that was minimised.
    """

    law: Parametric
    points: tuple[Point, ...]
    constants: dict[str, Interval]
    draws: tuple[Parametric, ...]
    frontiers: tuple[Frontier, ...]
    objective: float

    def loss(self, params: float, tokens: float) -> Interval:
        """Returns the loss that the law predicts; the noise of a single run is not in the interval.

        Raises:
            ConfigError: a figure is not above 0.
        """
        drawn = [law.loss(params, tokens) for law in self.draws]
        return Interval(value=self.law.loss(params, tokens), **_ends(drawn))

    @property
    def noise(self) -> float:
        """The median distance of a run from the law, as a share of its loss."""
        off = sorted(abs(self.law.loss(p.params, p.tokens) / p.loss - 1) for p in self.points)
        return off[len(off) // 2]

    @property
    def doubts(self) -> tuple[str, ...]:
        """What the runs do not tell, in sentences."""
        said = []
        for what, power in (("parameters", self.law.alpha), ("tokens", self.law.beta)):
            if not 0.01 < power < HIGHEST[3] - 0.01:
                said.append(f"These runs do not tell what {what} do to the loss; give runs further apart in {what}.")
        if self.law.floor < 0.01:
            said.append("These runs do not tell the floor E: their losses are too far above it, or too noisy.")
        return tuple(said)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fit as plain data."""
        runs = [
            {
                "run": p.name,
                "params": p.params,
                "tokens": p.tokens,
                "flops": p.flops,
                "loss": p.loss,
                "fitted_loss": (fitted := self.law.loss(p.params, p.tokens)),
                "residual": p.loss - fitted,
            }
            for p in self.points
        ]
        return {
            "constants": {name: asdict(figure) for name, figure in self.constants.items()},
            "objective": self.objective,
            "noise": self.noise,
            "doubts": list(self.doubts),
            "draws": len(self.draws),
            "frontiers": [asdict(line) for line in self.frontiers],
            "runs": runs,
        }

    def __str__(self) -> str:
        """Returns the tables."""
        rows = [("", "fitted", "95% of the drawn fits")]
        rows += [(n, f"{c.value:.4g}", f"{c.low:.4g} to {c.high:.4g}") for n, c in self.constants.items()]
        runs = [("run", "parameters", "tokens", "loss", "fitted", "residual")]
        for p in self.points:
            fitted = self.law.loss(p.params, p.tokens)
            sizes = (units.count(p.params), units.count(p.tokens))
            runs.append((p.name, *sizes, f"{p.loss:.4f}", f"{fitted:.4f}", f"{p.loss - fitted:+.4f}"))
        lines = ["L = E + A / N^alpha + B / D^beta; best N ~ C^a, best D ~ C^b, of C = 6 N D", *aligned(rows)]
        for line in self.frontiers:
            lines.append(f"a by {line.name}: {line.exponent:.3f}, from {line.count} {line.what}")
        return "\n".join([*lines, *self.doubts, "", *aligned(runs)])


def fit(points: Sequence[Point], *, draws: int = DRAWS, seed: int = 0) -> Fit:
    """Returns the law of a ladder of runs.

    Args:
        points: the runs, in any order.
        draws: how many times it is fitted to runs drawn anew, for the intervals.
        seed: of these draws.

    Raises:
        ConfigError: there are too few runs, or too few sizes among them, for five constants.
    """
    check(points)
    points = sorted(points, key=lambda p: (p.flops, p.params, p.name))
    runs = torch.tensor([[math.log(p.params), math.log(p.tokens), math.log(p.loss)] for p in points]).double()
    starts = torch.tensor(list(itertools.product(*GRID))).double()
    value = torch.empty(0)
    for rounds, kept in ROUNDS:
        starts, value = _descend(starts, runs.expand(len(starts), -1, -1), rounds=rounds)
        starts = starts[value.argsort()[:kept]]
    best = starts[0]
    drawn = _drawn(runs, best, draws=draws, seed=seed)
    law, laws = _law(best), tuple(map(_law, drawn))
    return Fit(
        law=law,
        points=tuple(points),
        constants={
            name: Interval(value=_constant(law, name), **_ends([_constant(x, name) for x in laws])) for name in NAMES
        },
        draws=laws,
        frontiers=tuple(line for line in (envelope(points), valleys(points)) if line is not None),
        objective=float(value.min()),
    )


def check(points: Sequence[Point]) -> None:
    """Makes sure that a law can be told from these runs.

    Raises:
        ConfigError: it cannot; the message says which runs are missing.
    """
    for point in points:
        for name, figure in (("parameters", point.params), ("tokens", point.tokens), ("loss", point.loss)):
            if not 0 < figure < math.inf:
                raise ConfigError(f"{point.name} has {figure} {name}; leave it out: a law is of figures above 0")
    if len(points) < LEAST_RUNS:
        raise ConfigError(
            f"{units.several(len(points), 'run')} cannot tell a law of five constants; give at least {LEAST_RUNS} "
            "finished ones, of three sizes and three lengths"
        )
    for name, figures in (
        ("parameters", [p.params for p in points]),
        ("tokens", [p.tokens for p in points]),
    ):
        if _sizes(figures) < LEAST_SIZES:
            raise ConfigError(
                f"these runs have {_sizes(figures)} different numbers of {name}, and a law needs {LEAST_SIZES}, "
                "further apart than 5%; add runs of another size"
            )
    both = torch.tensor([[math.log(p.params), math.log(p.tokens)] for p in points]).double()
    if torch.corrcoef(both.T)[0, 1].abs() > 0.999:
        raise ConfigError(
            "in these runs tokens grow with parameters all along, so nobody can tell what either of them does; add "
            "runs that have other numbers of tokens for the same parameters"
        )


def _sizes(figures: Sequence[float]) -> int:
    """How many there are that are more than 5% apart."""
    ordered = sorted(figures)
    return 1 + sum(b > 1.05 * a for a, b in itertools.pairwise(ordered))


def _drawn(runs: torch.Tensor, best: torch.Tensor, *, draws: int, seed: int) -> torch.Tensor:
    """The constants fitted to runs drawn anew with replacement: (draws, 5), each a law that its runs can tell."""
    chance = torch.Generator().manual_seed(seed)
    chosen: list[torch.Tensor] = []
    for _ in range(20 * draws):
        if len(chosen) == draws:
            break
        rows = torch.randint(len(runs), (len(runs),), generator=chance)
        kept = runs[rows.unique()]
        if len(kept) >= 5 and all(len(kept[:, i].unique()) >= LEAST_SIZES for i in (0, 1)):
            chosen.append(runs[rows])
    if not chosen:
        return best[None]
    # Alone, the fit to all runs would keep every draw in its own valley.
    around = torch.tensor(
        [[0.0, 0, 0, 0, 0], [-2, 0, -0.5, -0.15, 0], [0, -2, -0.5, 0, -0.15], [2, 2, 0.2, 0.15, 0.15]]
    )
    batch = torch.stack(chosen)
    starts = best + around.double()
    found, value = _descend(
        starts.repeat(len(batch), 1), batch.repeat_interleave(len(starts), dim=0), rounds=DRAW_ROUNDS
    )
    value = value.view(len(batch), -1)
    return found.view(len(batch), -1, 5)[torch.arange(len(batch)), value.argmin(1)]


def _descend(constants: torch.Tensor, runs: torch.Tensor, *, rounds: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns where each start comes to rest, and the sum of its Huber losses.

    Args:
        constants: log A, log B, log E, alpha and beta of each start: (starts, 5).
        runs: the logarithms of N, D and the loss: (starts, runs, 3).
        rounds: at most.
    """
    low, high = (torch.tensor(ends).double() for ends in (LOWEST, HIGHEST))
    damping = torch.full((len(constants),), 1e-3).double()
    off, slopes = _residuals(constants, runs)
    value = _huber(off)
    for _ in range(rounds):
        weights = DELTA / off.abs().clamp(min=DELTA)  # of least squares that touch the Huber loss here
        gradient = torch.einsum("snk,sn->sk", slopes, weights * off)
        curvature = torch.einsum("snk,sn,snj->skj", slopes, weights, slopes)
        scale = curvature.diagonal(dim1=1, dim2=2) + 1e-12
        step = torch.linalg.solve(curvature + torch.diag_embed(damping[:, None] * scale + 1e-14), gradient)
        tried = (constants - step).clamp(low, high)
        new_off, new_slopes = _residuals(tried, runs)
        new_value = _huber(new_off)
        better = new_value < value
        gained = (value - new_value)[better]
        constants = torch.where(better[:, None], tried, constants)
        off = torch.where(better[:, None], new_off, off)
        slopes = torch.where(better[:, None, None], new_slopes, slopes)
        value = torch.where(better, new_value, value)
        damping = torch.where(better, damping / 5, damping * 4).clamp(1e-12, 1e12)
        if bool((damping > 1e9).all()) or (len(gained) and float(gained.max()) < 1e-15 and bool(better.all())):
            break
    return constants, value


def _residuals(constants: torch.Tensor, runs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How far the law's logarithm is off each run's (starts, runs), and its slopes by the constants (..., 5)."""
    size, length, floor, alpha, beta = constants[:, None, :].unbind(-1)
    params, tokens, loss = runs.unbind(-1)
    terms = torch.stack(
        torch.broadcast_tensors(size - alpha * params, length - beta * tokens, floor + 0 * params), dim=-1
    )
    shares = terms.softmax(-1)
    powers = torch.stack([-params * shares[..., 0], -tokens * shares[..., 1]], dim=-1)
    return terms.logsumexp(-1) - loss, torch.cat([shares, powers], dim=-1)


def _huber(off: torch.Tensor) -> torch.Tensor:
    far = off.abs()
    return torch.where(far < DELTA, far**2 / 2, DELTA * (far - DELTA / 2)).sum(-1)


def _law(constants: torch.Tensor) -> Parametric:
    size, length, floor, alpha, beta = constants.tolist()
    return Parametric(
        name="your own",
        floor=math.exp(floor),
        size=math.exp(size),
        length=math.exp(length),
        alpha=alpha,
        beta=beta,
        source="your own runs",
    )


def _constant(law: Parametric, name: str) -> float:
    powers = (law.alpha + law.beta) or math.nan
    values = (law.floor, law.size, law.length, law.alpha, law.beta, law.beta / powers, law.alpha / powers)
    return dict(zip(NAMES, values, strict=True))[name]


def _ends(drawn: Sequence[float]) -> dict[str, float]:
    ends = torch.tensor([x for x in drawn if not math.isnan(x)] or [math.nan]).double()
    return {"low": float(ends.quantile(0.025)), "high": float(ends.quantile(0.975))}
