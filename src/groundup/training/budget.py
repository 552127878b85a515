"""How long a run lasts: in steps, tokens or time. A schedule asks only how much of it is spent."""

from __future__ import annotations

import dataclasses

from groundup.errors import ConfigError
from groundup.specs import Spec

MOST = 10**18  # steps, tokens or seconds: 30 billion years


class Tally(Spec):
    """What a run has spent so far.

    Attributes:
        steps: updates of the weights.
        tokens: of text that were read.
        seconds: time inside steps; what the caller does between them is not counted.
    """

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0


class Budget(Spec, abstract=True):
    """How long a run lasts."""

    def spent(self, tally: Tally) -> float:
        """Returns the share of the budget that a run has spent; the run ends at 1."""
        raise NotImplementedError(type(self).__name__)

    def expected_tokens(self, batch_tokens: int, *, step_seconds: float) -> int:
        """Returns how many tokens will be read in steps of so many tokens and seconds."""
        raise NotImplementedError(type(self).__name__)


class Steps(Budget):
    """A number of updates."""

    count: int = dataclasses.field(kw_only=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self.count, "steps")

    def spent(self, tally: Tally) -> float:
        """Returns the share of the updates that are done."""
        return tally.steps / self.count

    def expected_tokens(self, batch_tokens: int, *, step_seconds: float) -> int:
        """Returns the tokens of the updates."""
        return self.count * batch_tokens


class Tokens(Budget):
    """A number of tokens of text."""

    count: int = dataclasses.field(kw_only=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self.count, "tokens")

    def spent(self, tally: Tally) -> float:
        """Returns the share of the tokens that are read."""
        return tally.tokens / self.count

    def expected_tokens(self, batch_tokens: int, *, step_seconds: float) -> int:
        """Returns the tokens."""
        return self.count


class Seconds(Budget):
    """A time, counted inside steps only; resuming goes on where the clock stood."""

    count: float = dataclasses.field(kw_only=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self.count, "seconds")

    def spent(self, tally: Tally) -> float:
        """Returns the share of the time that has passed."""
        return tally.seconds / self.count

    def expected_tokens(self, batch_tokens: int, *, step_seconds: float) -> int:
        """Returns the tokens of as many steps as fit into the time; one at least."""
        return batch_tokens * max(1, round(self.count / step_seconds))


def _positive(count: float, unit: str) -> float:
    if not isinstance(count, int | float) or not 0 < count <= MOST:
        given = repr(count)[:30]
        raise ConfigError(
            f"a budget of {given} {unit} trains nothing or never ends; give a number above 0 and up to {MOST:.0e}"
        )
    return count


def updates(count: float) -> Budget:
    """Returns a budget of this many updates of the weights."""
    if _positive(count, "updates") != int(count):
        raise ConfigError(f"a budget of {count!r} updates cuts one in parts; give a whole number")
    return Steps(int(count))


def tokens(count: float) -> Budget:
    """Returns a budget of this many tokens: ``tokens(10e9)``."""
    return Tokens(int(_positive(count, "tokens")))


def seconds(count: float) -> Budget:
    """Returns a budget of this many seconds inside steps."""
    return Seconds(_positive(count, "seconds"))


def minutes(count: float) -> Budget:
    """Returns a budget of this many minutes inside steps."""
    return Seconds(60.0 * _positive(count, "minutes"))


def hours(count: float) -> Budget:
    """Returns a budget of this many hours inside steps."""
    return Seconds(3600.0 * _positive(count, "hours"))


def usd(count: float, *, per_hour: float) -> Budget:
    """Returns a budget of this much money for time inside steps, of which an hour costs ``per_hour``."""
    return Seconds(3600.0 * _positive(count, "USD") / _positive(per_hour, "USD per hour"))


def kwh(count: float, *, watts: float) -> Budget:
    """Returns a budget of this many kilowatt-hours for time inside steps, in which the machine draws ``watts``."""
    return Seconds(3600.0 * 1000.0 * _positive(count, "kWh") / _positive(watts, "watts"))
