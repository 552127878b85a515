"""Options that several verbs share, and how verbs print."""

from __future__ import annotations

import json
from typing import Any

import click

as_json = click.option("--json", "as_json", is_flag=True, help="Print figures as JSON, with units in their names.")
offline = click.option("--offline", is_flag=True, help="Take hub models from the cache only, without the network.")
out = click.option("--out", type=click.Path(), help="A new folder to write to.")


def print_json(data: Any) -> None:
    """Prints data as JSON on standard output."""
    click.echo(json.dumps(data, indent=2))


class Number(click.ParamType):
    """A number as people write it: 2e9, 2B, 0.5M, 300k."""

    name = "number"
    units = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}  # noqa: RUF012 - read only

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Returns the number, or fails with a sentence."""
        if isinstance(value, int | float):
            return float(value)
        text = str(value).strip().lower().replace("_", "").replace(",", "")
        unit = self.units.get(text[-1:], 1.0)
        try:
            number = float(text[:-1] if text[-1:] in self.units else text) * unit
        except ValueError:
            number = float("nan")
        if not 0 < number < float("inf"):
            self.fail(f"{value!r} is not a number above 0, such as 2e9, 2B or 500k", param, ctx)
        return number


class Duration(click.ParamType):
    """A time as people write it: 90s, 5m, 1.5h, 2d; a plain number is minutes."""

    name = "duration"
    units = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}  # noqa: RUF012 - read only

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Returns the seconds, or fails with a sentence."""
        text = str(value).strip().lower()
        unit = self.units.get(text[-1:], 60.0)
        try:
            seconds = float(text[:-1] if text[-1:] in self.units else text) * unit
        except ValueError:
            seconds = float("nan")
        if not 0 < seconds < float("inf"):
            self.fail(f"{value!r} is not a time, such as 90s, 5m or 1.5h", param, ctx)
        return seconds
