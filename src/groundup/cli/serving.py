"""``groundup plan --serve``."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from groundup.cli.options import print_json

OWN = ("batch", "prompt", "weights")  # options of plan that are for serving alone
COMMON = ("offload", "context", "precision", "on", "region", "watts", "usd_per_hour")
BOTH = {"model", "settings", "as_json", "offline", "serve", *OWN, *COMMON}


def asked(given: dict[str, Any]) -> bool:
    """Returns whether serving is to be planned; takes the options of serving away where it is not.

    Raises:
        click.UsageError: one of them came without ``--serve``.
    """
    if given.pop("serve"):
        return True
    idle = [name for name in OWN if given.pop(name)]
    if idle:
        raise click.UsageError(f"--{idle[0]} is for serving; give --serve too, or leave it out.")
    return False


def plan(model: str | None, settings: tuple[str, ...], *, as_json: bool, given: dict[str, Any]) -> None:
    """Prints what generating with a model takes.

    Raises:
        click.UsageError: there is no model, or an option came that is for training.
    """
    from groundup.hub.resolve import spec
    from groundup.planner.serving import plan_serving
    from groundup.recipes.settings import model_with

    context = click.get_current_context()
    sources = {name: context.get_parameter_source(name) for name in context.params}
    typed = [name for name, source in sources.items() if source is ParameterSource.COMMANDLINE and name not in BOTH]
    if typed:
        raise click.UsageError(f"--{typed[0].replace('_', '-')} is for training; leave it out, or --serve.")
    if model is None:
        raise click.UsageError("Missing argument 'MODEL'.")
    wanted = {name: given[name] for name in (*OWN, *COMMON) if given[name] is not None}
    made = plan_serving(model_with(spec(model), settings) if settings else model, **wanted)
    if as_json:
        print_json(made.to_dict())
    else:
        click.echo(str(made))
