"""``groundup list``."""

from __future__ import annotations

from typing import Any

import click

from groundup.cli.options import as_json, print_json


@click.command(name="list")
@click.argument("what", type=click.Choice(["models", "recipes", "corpora", "hardware"]), default="models")
@as_json
def listing(what: str, as_json: bool) -> None:
    """List models, recipes, corpora or hardware by name.

    Example:  groundup list models
    """
    from groundup.planner.table import aligned
    from groundup.recipes.catalogue import CATALOGUES

    rows = CATALOGUES[what]()
    if as_json:
        print_json(rows)
        return
    cells = [dict(_cell(name, value) for name, value in row.items()) for row in rows]
    shown = [list(cells[0]), *(list(row.values()) for row in cells)]
    words = sum(isinstance(value, str) for value in rows[0].values())  # which come before the numbers
    click.echo("\n".join(aligned(shown, left=words)))


def _cell(name: str, value: Any) -> tuple[str, str]:
    """A column's title and its value as people read it, by the unit in its name."""
    from groundup.planner import units

    printed = {
        "_flops_per_second": lambda number: units.flops(number) + "/s",
        "_bytes_per_second": lambda number: units.bytes_(number) + "/s",
        "_bytes": units.bytes_,
    }
    for unit, write in printed.items():
        if name.endswith(unit):
            return name.removesuffix(unit), "" if value is None else write(value)
    if value is None:
        return name, ""
    return name, units.count(value) if name == "parameters" else str(value)
