"""Progress on standard error: a live bar on a terminal, plain lines elsewhere; results go to standard output."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from groundup.cli.options import print_json
from groundup.planner import units
from groundup.planner.measure import peak_rss_bytes
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
        self.console = Console(stderr=True, highlight=False)
        self.live = self.console.is_terminal
        self.bar = Progress(
            TextColumn("  "),
            BarColumn(BAR_COLUMNS),
            TextColumn("{task.description}"),
            console=self.console,
            transient=True,
        )
        self.task = self.bar.add_task("", visible=False)
        self.last_line = time.monotonic()

    def __enter__(self) -> Drawing:
        if self.live:
            self.bar.start()
        return self

    def __exit__(self, *fault: object) -> None:
        self.close()

    def close(self) -> None:
        """Takes the bar away."""
        if self.live:
            self.bar.stop()

    def stage(self, title: str) -> None:
        """Prints the title of a part of the job."""
        self.bar.update(self.task, visible=False)
        self.console.print(title, style="bold")
        self.last_line = time.monotonic()

    def say(self, text: str) -> None:
        """Prints a finding, indented."""
        self.bar.update(self.task, visible=False)
        for line in text.splitlines() or [""]:
            self.console.print(f"  {line}", markup=False, soft_wrap=True)

    def result(self, text: str) -> None:
        """Prints a result on standard output, indented; beside JSON, on standard error."""
        self.bar.update(self.task, visible=False)
        self.bar.refresh()
        for line in text.splitlines() or [""]:
            click.echo(f"  {line}".rstrip(), err=self.as_json)

    def progress(self, done: float, total: float | None) -> None:
        """Moves the bar."""
        self._move(done / total if total else None, "" if total else f"{done:,.0f}")

    def step(self, step: Step, *, bits_per_byte: float | None) -> None:
        """Moves the bar and shows the step's figures."""
        left = step.tally.seconds * (1 / max(step.progress, 1e-9) - 1)
        figures = [  # what matters most comes first: a narrow terminal shows no more than fits
            f"step {step.tally.steps:,}",
            f"loss {step.loss:.3f}",
            f"{units.duration(left)} left",
            f"{step.tokens / step.seconds:,.0f} tokens/s",
            *([f"{bits_per_byte:.3f} bits a byte"] if bits_per_byte else []),
            f"{units.bytes_(peak_rss_bytes())} at most",
        ]
        room = self.console.width - BAR_COLUMNS - 6 if self.live else 1000
        while len(figures) > 2 and len("  ".join(figures)) > room:
            figures.pop()
        self._move(step.progress, "  ".join(figures), last=step.last)
        if step.last and self.live:
            self.say("  ".join(figures))

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
        click.echo(
            f"validation: loss {score.loss:.4f}, perplexity {score.perplexity:.2f}, "
            f"{score.bits_per_byte:.4f} bits per byte"
        )

    def _move(self, share: float | None, text: str, *, last: bool = False) -> None:
        if self.live:
            self.bar.update(
                self.task,
                visible=True,
                total=None if share is None else 1.0,
                completed=share or 0.0,
                description=text or units.percent(share or 0.0),
            )
        elif last or time.monotonic() - self.last_line > LINE_SECONDS:
            self.last_line = time.monotonic()
            print(f"  {units.percent(share) + '  ' if share is not None else ''}{text}", file=sys.stderr, flush=True)
