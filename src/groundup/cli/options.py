"""Options that several verbs share, and how verbs read and print."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click

from groundup.errors import TextError
from groundup.files import as_path


def _stay_offline(_context: click.Context, _option: click.Parameter, asked: bool) -> None:
    """Keeps huggingface_hub, which reads this when it is imported, from the network."""
    if asked:
        os.environ["HF_HUB_OFFLINE"] = "1"


as_json = click.option("--json", "as_json", is_flag=True, help="Print figures as JSON, with units in their names.")
offline = click.option(
    "--offline",
    is_flag=True,
    expose_value=False,
    callback=_stay_offline,
    help="Take models and data sets of the hub from the cache only, without the network.",
)
tensorboard = click.option("--tensorboard", is_flag=True, help="Write TensorBoard's events into the run's folder too.")
COUNT = click.IntRange(min=1)


def read_stdin() -> str:
    """Returns the text on standard input.

    Raises:
        TextError: it is not UTF-8.
    """
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as fault:
        raise TextError("standard input is not text in UTF-8; convert it, for example with iconv") from fault


def print_json(data: Any) -> None:
    """Prints data as JSON on standard output."""
    click.echo(json.dumps(data, indent=2))


class Folder(click.ParamType):
    """A folder as a user names it: ``--out=~/run`` reaches us with the ``~``, which the shell leaves alone there."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Returns the path."""
        return as_path(value)


class Quantity(click.ParamType):
    """A number above 0 with a letter for its unit; subclasses say which letters there are."""

    units: Mapping[str, float]
    plain = 1.0  # the unit of a number without a letter
    expected: str

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Returns the number in the base unit, or fails with a sentence."""
        text = str(value).strip().lower().replace("_", "").replace(",", "")
        unit = self.units.get(text[-1:])
        try:
            number = float(text if unit is None else text[:-1]) * (self.plain if unit is None else unit)
        except ValueError:
            number = float("nan")
        if not 0 < number < float("inf"):
            self.fail(f"{value!r} is not {self.expected}", param, ctx)
        return number


class Number(Quantity):
    """A number as people write it: 2e9, 2B, 0.5M, 300k."""

    name = "number"
    units = MappingProxyType({"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12})
    expected = "a number above 0, such as 2e9, 2B or 500k"


class Duration(Quantity):
    """A time as people write it, in seconds: 90s, 5m, 1.5h, 2d; a plain number is minutes."""

    name = "duration"
    units = MappingProxyType({"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0})
    plain = 60.0
    expected = "a time, such as 90s, 5m or 1.5h"
