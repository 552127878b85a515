"""``groundup list``."""

from __future__ import annotations

import click

from groundup.cli.options import as_json, print_json


@click.command(name="list")
@click.argument("what", type=click.Choice(["models", "corpora", "hardware"]), default="models")
@as_json
def listing(what: str, as_json: bool) -> None:
    """List models, corpora or hardware by name.

    Example:  groundup list models
    """
    from groundup.recipes.catalogue import CATALOGUES

    rows = CATALOGUES[what]()
    if as_json:
        print_json(rows)
        return
    names = list(rows[0])
    shown = [names, *([str(row[name]) for name in names] for row in rows)]
    widths = [max(len(row[i]) for row in shown) for i in range(len(names))]
    for row in shown:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
