"""The sides of a benchmark: each in a process of its own, which takes steps when it is asked to.

The sides take turns, so that a change in the machine's speed hits all of them.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

SERVE = "--serve"  # what a benchmark is called with to be a side


class Side:
    """A side: this very benchmark, called with `SERVE` and what tells the side which one it is."""

    def __init__(self, *which: str) -> None:
        self.which = which
        self.seconds: list[float] = []
        self.peak_bytes = 0
        self.facts: dict[str, float] = {}
        command = [sys.executable, sys.argv[0], SERVE, *which]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, steps: int = 1) -> float:
        """Returns the seconds that so many steps took."""
        assert self.process.stdin and self.process.stdout
        print(steps, file=self.process.stdin, flush=True)
        told = self.process.stdout.readline()
        if not told:
            raise SystemExit(f"the side {' '.join(self.which)} ended with status {self.process.wait()}")
        seconds, self.peak_bytes, self.facts = json.loads(told)
        return seconds

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()

    @property
    def median(self) -> float:
        """The median seconds of the rounds."""
        return statistics.median(self.seconds)


def serve(step: Callable[[], object], **facts: float) -> None:
    """Answers each line on standard input with the seconds that so many steps took, the peak memory, and the facts."""
    from groundup.planner.measure import peak_rss_bytes

    for line in sys.stdin:
        began = time.perf_counter()
        for _ in range(int(line)):
            step()
        print(json.dumps([time.perf_counter() - began, peak_rss_bytes(), facts]), flush=True)


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Returns how many times as fast ours is, round by round: the median, the lowest and the highest."""
    found = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    return statistics.median(found), found[0], found[-1]
