"""What a comparison of architectures is, as one value that is written to comparison.yaml and read back."""

from __future__ import annotations

from groundup.errors import ConfigError
from groundup.model.decoder import Decoder
from groundup.planner import books
from groundup.planner.plan import plan
from groundup.recipes.settings import Run
from groundup.specs import Positive, Size, Spec, override_all, walk
from groundup.training.budget import Budget, Seconds, Steps

MATCHES = ("flops", "params", "memory", "time")
FARTHEST = 8.0  # times the optimizer's rates, or this part of them, is the edge of the search


class Entrant(Spec):
    """An architecture at the size at which it is compared.

    Attributes:
        name: what was given, as a folder's name.
        model: its spec.
        steps: updates of a run.
        step_seconds: what one took here, before the comparison.
    """

    name: str
    model: Decoder
    steps: Size
    step_seconds: Positive


class Comparison(Spec):
    """What is compared, and how.

    Attributes:
        match: what is the same for all: ``flops``, ``params``, ``memory`` or ``time``.
        budget: seconds for all of it.
        seeds: runs of each architecture.
        target: the figure that is matched, of one architecture: operations of a token's forward, parameters, bytes at
            the peak above the program, or seconds of a step.
        work: of a run: its steps times what one of them costs, see `cost`; None before it is known.
        run: the settings of every run; its model is the first one.
        entrants: the architectures, sized.
    """

    match: str
    budget: Positive
    seeds: Size
    target: Positive
    work: Positive | None = None
    run: Run
    entrants: tuple[Entrant, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.match not in MATCHES:
            raise ConfigError(f"match={self.match!r} does not exist; choose from {', '.join(MATCHES)}")

    def cost(self, model: Decoder, step_seconds: float) -> float:
        """Returns what a step costs in what is matched: operations, seconds, or one step."""
        match self.match:
            case "flops":
                return books.train_flops_per_token(model, context=self.run.length) * self.run.step_tokens
            case "time":
                return step_seconds
        return 1.0

    def run_of(self, entrant: Entrant, *, seed: int, factor: float, share: float = 1.0) -> Run:
        """Returns a run of one architecture.

        Args:
            entrant: which.
            seed: of its weights and the order of its batches.
            factor: times which its rates are the optimizer's.
            share: how much of a run it is.
        """
        nodes = [(path, vars(node)) for path, node in walk(self.run.optimizer)]
        rates = {f"{path}.lr".lstrip("."): node["lr"] * factor for path, node in nodes if "lr" in node}
        optimizer = override_all(self.run.optimizer, rates)
        budget: Budget = Steps(max(1, round(entrant.steps * share)))
        if self.match == "time":
            budget = Seconds(entrant.steps * entrant.step_seconds * share)
        return self.run.replace(model=entrant.model, optimizer=optimizer, seed=seed, budget=budget)


def figure(match: str, run: Run, model: Decoder) -> float:
    """Returns what is matched, of a model: see `Comparison.target`."""
    match match:
        case "flops":
            return books.forward_flops_per_token(model, context=run.length)
        case "params":
            return books.params(model)
    settings = {"precision": run.precision, "optimizer": run.optimizer}
    planned = plan(model, tokens=1, rows=run.rows, context=run.length, **settings)
    return planned.step_seconds if match == "time" else planned.peak_bytes - planned.process_bytes
