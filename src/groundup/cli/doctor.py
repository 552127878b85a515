"""``groundup doctor``."""

from __future__ import annotations

import click

from groundup.cli.options import as_json, print_json


@click.command()
@click.option("--calibrate", is_flag=True, help="Measure the machine anew instead of taking the cached figures.")
@as_json
def doctor(calibrate: bool, as_json: bool) -> None:
    """Tell what this machine is, what is installed, and what is missing and how to get it.

    Example:  groundup doctor --calibrate
    """
    from groundup.recipes.doctor import examine

    findings = examine(fresh=calibrate)
    if as_json:
        print_json(findings.to_dict())
        return
    lines = findings.describe()
    width = max(map(len, lines))
    for name, value in lines.items():
        click.echo(f"{name:{width}}  {value}")
