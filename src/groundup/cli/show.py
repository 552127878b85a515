"""``groundup show``."""

from __future__ import annotations

import click

from groundup.cli.options import COUNT, as_json, offline, print_json


@click.command()
@click.argument("model")
@click.argument("settings", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--context", type=COUNT, help="Tokens of a row.  [default: the model's context]")
@as_json
@offline
def show(model: str, settings: tuple[str, ...], context: int | None, as_json: bool) -> None:
    """Show the tree of MODEL: shape, parameters, forward operations per token and state of every part.

    Settings change it, as in layers=6 or 'layers.*.ffn.mixer.hidden=1024'.

    Example:  groundup show llama-3-8b
    """
    from dataclasses import asdict

    from groundup.hub.resolve import spec
    from groundup.planner.books import tree
    from groundup.planner.table import tree_lines
    from groundup.recipes.settings import model_with

    found = model_with(spec(model), settings)
    root = tree(found, context=context)
    if as_json:
        print_json({"spec": found.to_dict(), **asdict(root)})
        return
    for line in tree_lines(root, tokens=context or found.longest):
        click.echo(line)
