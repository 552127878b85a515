"""``groundup compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from groundup.cli.options import Duration, Folder, as_json, offline, print_json


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL MODEL...")
@click.option(
    "--match",
    type=click.Choice(["flops", "params", "memory", "time"]),
    default="flops",
    show_default=True,
    help="What is the same for all.",
)
@click.option("--budget", type=Duration(), default="30m", show_default=True, help="The time of all of it, about.")
@click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True, help="Runs of each architecture.")
@click.option("--data", "source", default="python", show_default=True, help="A file, a folder or a dataset id.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of all runs, such as rows=8.")
@click.option("--out", type=Folder(), help="The comparison's folder.  [default: comparisons/MATCH]")
@as_json
@offline
def compare(models: tuple[str, ...], out: Path | None, as_json: bool, match: str, **asked: Any) -> None:
    """Find out which architecture is best on a text, at a matched budget: MODELs of any size, or FILE.py:NAME.

    Each is brought to the same size by the planner, trained alike with a learning rate of its own and several seeds,
    and scored on the same held-out documents. The page index.html in the folder has it all. Called again, it goes on
    where it was stopped; with another MODEL and the same folder, that one is added.

    Example:  groundup compare gpt2 llama mamba rwkv lstm --match flops --budget 30m
    """
    from groundup.cli.draw import Drawing
    from groundup.recipes.compare import compare as run
    from groundup.recipes.findings import rows_of

    folder = out or Path("comparisons") / match
    try:
        with Drawing(as_json=as_json) as drawing:
            found = run(models, folder=folder, match=match, watch=drawing, **asked)
            drawing.close()
            if as_json:
                print_json(found)
                return
            drawing.table(f"{folder}, bits per byte on {found['documents']} documents, lower is better", rows_of(found))
            drawing.result("\n" + "\n".join(found["verdict"]))
            drawing.result(f"\nThe page: {folder / 'index.html'}")
    except KeyboardInterrupt as pressed:
        raise click.Abort(f"The same command goes on with {folder}") from pressed
