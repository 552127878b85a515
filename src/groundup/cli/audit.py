"""``groundup audit``."""

from __future__ import annotations

from pathlib import Path

import click

from groundup.cli.options import Folder, as_json, print_json


@click.command()
@click.argument("run", type=Folder())
@as_json
def audit(run: Path, as_json: bool) -> None:
    """Compare the plan of RUN, a folder, with what was measured; the run may still be going.

    Example:  groundup audit runs/quickstart
    """
    from groundup.recipes.audit import audit as compare

    found = compare(run)
    if as_json:
        print_json(found.to_dict())
    else:
        click.echo(str(found))
