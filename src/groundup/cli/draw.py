"""Progress on standard error: a live bar on a terminal, plain lines elsewhere; results go to standard output."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from groundup.cli.options import print_json
from groundup.planner import units
from groundup.planner.table import aligned
from groundup.recipes.watch import Watch

if TYPE_CHECKING:
    from groundup.planner.plan import Plan
    from groundup.recipes.pretrain import Outcome
    from groundup.recipes.settings import Run
    from groundup.training.steps import Step

BAR_COLUMNS = 24
LINE_SECONDS = 10.0  # between lines where there is no terminal


class Drawing(Watch):
    """Draws what a job tells of itself.

    Args:
        as_json: whether standard output is to hold the outcome as JSON and nothing else.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.console = Console(stderr=True, highlight=False, markup=False, emoji=False)  # it prints names of files
        self.terminal = self.console.is_terminal
        self.bar = ProgressBar(total=1.0, width=BAR_COLUMNS)
        self.lines: tuple[str, str] | None = None  # beside the bar and below it; None while nothing is under way
        self.live = Live(console=self.console, transient=True, get_renderable=self._drawn)
        self.last_line = time.monotonic()

    def __enter__(self) -> Drawing:
        if self.terminal:
            self.live.start()
        return self

    def __exit__(self, *fault: object) -> None:
        self.close()

    def close(self) -> None:
        """Takes the bar away."""
        self.live.stop()

    def stage(self, title: str) -> None:
        """Prints the title of a part of the job."""
        self.lines = None
        self.console.print(title, style="bold")
        self.last_line = time.monotonic()

    def say(self, text: str) -> None:
        """Prints a finding, indented."""
        self.lines = None
        for line in text.splitlines() or [""]:
            self.console.print(f"  {line}", soft_wrap=True)

    def result(self, text: str) -> None:
        """Prints a result on standard output, indented; beside JSON, on standard error."""
        self.lines = None
        self.live.refresh()
        for line in text.splitlines() or [""]:
            click.echo(f"  {line}".rstrip(), err=self.as_json)

    def progress(self, done: float, total: float | None) -> None:
        """Moves the bar."""
        self._move(done / total if total else None, beside=units.percent(done / total) if total else f"{done:,.0f}")

    def step(self, step: Step, *, bits_per_byte: float | None, utilisation: float, peak_bytes: int) -> None:
        """Moves the bar and shows the step's figures."""
        left = step.tally.seconds * (1 / max(step.progress, 1e-9) - 1)
        clock = units.duration(step.tally.seconds) if step.last else f"{units.duration(left)} left"
        beside = f"{units.percent(step.progress)}  step {step.tally.steps:,}  {clock}"
        below = [  # a narrow terminal shows as many as fit
            f"loss {step.loss:.3f}",
            *([] if bits_per_byte is None else [f"{bits_per_byte:.3f} bits a byte"]),
            f"{step.tokens / step.seconds:,.0f} tokens/s",
            f"{utilisation:.0%} utilised",
            f"peak {units.bytes_(peak_bytes)}",
        ]
        while self.terminal and len(below) > 1 and len("  ".join(below)) > self.console.width - 3:
            below.pop()
        self._move(step.progress, beside=beside, below="  ".join(below), last=step.last)

    def plan(self, plan: Plan) -> None:
        """Prints the plan's table, without what was assumed."""
        self.say(str(plan).partition("\n\n")[0])

    def table(self, title: str, rows: Sequence[Sequence[str]]) -> None:
        """Prints a table; its first row is the header."""
        self.result("\n".join([title, *aligned(rows)]))

    def run(self, run: Run, folder: Path) -> None:
        """Prints the resolved settings of a run, once, without those at their defaults."""
        import yaml

        self.stage(f"{folder}: what is not at its default (config.yaml there has it all)")
        self.say(yaml.safe_dump(run.to_dict(), sort_keys=False, allow_unicode=True).rstrip())

    def outcome(self, outcome: Outcome) -> None:
        """Prints where a run lies and what it came to, on standard output."""
        self.close()
        if self.as_json:
            print_json(outcome.to_dict())
            return
        score, tally = outcome.score, outcome.tally
        click.echo(
            f"{outcome.place.folder}: {tally.steps:,} steps, {tally.tokens:,} tokens, {units.duration(tally.seconds)}"
        )
        bits = "" if score.bits_per_byte is None else f", {score.bits_per_byte:.4f} bits per byte"
        click.echo(f"validation: loss {score.loss:.4f}, perplexity {score.perplexity:.2f}{bits}")

    def _move(self, share: float | None, *, beside: str, below: str = "", last: bool = False) -> None:
        self.bar.total, self.bar.completed = (1.0, share) if share is not None else (None, 0.0)
        self.lines = beside, below
        if last or (not self.terminal and time.monotonic() - self.last_line > LINE_SECONDS):
            self.say("\n".join([beside, below]) if self.terminal else f"{beside}  {below}".rstrip())
            self.last_line = time.monotonic()

    def _drawn(self) -> RenderableType:
        """What the terminal shows below all that is printed: the bar, and its figures."""
        if self.lines is None:
            return Group()
        beside, below = self.lines
        head = Table.grid(padding=(0, 1))
        head.add_row(" ", self.bar, beside)
        return Group(head, Text(f"  {below}", no_wrap=True)) if below else head
