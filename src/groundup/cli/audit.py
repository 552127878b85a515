"""``groundup audit``."""

from __future__ import annotations

from pathlib import Path

import click

from groundup.cli.options import Folder, as_json, print_json


@click.command()
@click.argument("run", type=Folder(), required=False)
@click.option("--all", "every", is_flag=True, help="All runs of this machine; plans are corrected by what they say.")
@click.option("--html", type=Folder(), metavar="FILE", help="With --all, write the errors as a page with plots.")
@as_json
def audit(run: Path | None, every: bool, html: Path | None, as_json: bool) -> None:
    """Compare the plan of RUN, a folder, with what was measured; the run may still be going.

    With --all, the errors of all runs that ended on this machine are told, and the next plans for it are corrected by
    their median.

    Example:  groundup audit runs/quickstart
    """
    from groundup.files import atomic_write
    from groundup.recipes.audit import audit as compare
    from groundup.recipes.audit_all import audit_all, history_page

    if every == (run is not None):
        raise click.UsageError("Name a RUN, such as runs/quickstart, or give --all; one of them.")
    if html is not None and not every:
        raise click.UsageError("--html draws the errors of all runs; give --all.")
    if run is None:
        found = audit_all()
        if html is not None:
            atomic_write(html, history_page(found))
    else:
        found = compare(run)
    if as_json:
        print_json(found.to_dict())
    else:
        click.echo(str(found))
