"""Who watches a job: the command line draws what it is told here, a library user hears nothing."""

from __future__ import annotations

from collections.abc import Sequence

from groundup.planner.plan import Plan
from groundup.training.steps import Step


class Watch:
    """Takes what a job tells of itself; this base class lets it pass."""

    def stage(self, title: str) -> None:
        """A new part of the job begins."""

    def say(self, text: str) -> None:
        """A finding, in one or more lines."""

    def result(self, text: str) -> None:
        """What the job came to, in one or more lines."""

    def progress(self, done: float, total: float | None) -> None:
        """Work done so far in this stage, in any unit; ``total`` is None where nobody knows."""

    def step(self, step: Step, *, bits_per_byte: float | None, utilisation: float, peak_bytes: int) -> None:
        """One update of the weights.

        Args:
            step: what it was.
            bits_per_byte: of the training text; None where its loss does not tell them.
            utilisation: operations per second as a share of the machine's matrix rate.
            peak_bytes: the most memory that the training has held so far.
        """

    def plan(self, plan: Plan) -> None:
        """What the run will take."""

    def table(self, title: str, rows: Sequence[Sequence[str]]) -> None:
        """A table whose first row is its header."""


class StepsOnly(Watch):
    """Passes on the steps of a job that is part of a larger one, and nothing else."""

    def __init__(self, watch: Watch) -> None:
        self.step = watch.step
