"""``groundup quickstart``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from groundup.cli import resumable
from groundup.cli.options import Duration, Folder, as_json


@click.command()
@click.option("--time", type=Duration(), help="How long to train.  [default: 3.25 minutes]")
@click.option("--data", help="A file or folder to train on.  [default: python, the standard library's source]")
@click.option("--out", type=Folder(), help="The run's folder.  [default: runs/quickstart]")
@click.option("--new", is_flag=True, help="Start anew even where an unfinished run could go on.")
@as_json
def quickstart(time: float | None, data: str | None, out: Path | None, new: bool, as_json: bool) -> None:
    """See it all in five minutes: plan, train, evaluate and sample a small model on this machine, offline.

    Stopped, it goes on when it is called again. Finished, it takes a new folder.

    Example:  groundup quickstart --time 10m
    """
    from groundup.cli.draw import Drawing
    from groundup.recipes import quickstart as recipe
    from groundup.recipes.place import Place

    folder = out or Path("runs/quickstart")
    go_on = not new and recipe.unfinished(folder)
    if folder.exists() and not go_on and out is None:
        if sys.stdin.isatty() and not new:
            click.confirm(f"{folder} is finished; start anew in {Place.free(folder)}?", default=True, abort=True)
        folder = Place.free(folder)
    run = recipe.design(
        seconds=recipe.TRAIN_SECONDS if time is None else time, source="python" if data is None else data
    )
    if go_on:
        recipe.check_same(folder, seconds=time, source=data)
    again = "groundup quickstart" + ("" if folder == Path("runs/quickstart") else " --out {folder}")
    with resumable(folder, command=again), Drawing(as_json=as_json) as drawing:
        if folder != (out or Path("runs/quickstart")):
            drawing.say(f"This one goes to {folder}.")
        if go_on:
            drawing.say(f"Going on with {folder}, which was stopped; --new starts anew.")
        outcome = recipe.quickstart(folder, run=run, watch=drawing, go_on=go_on)
        drawing.outcome(outcome)
    if as_json:
        return
    click.echo(f"""
All of it lies in {outcome.place.folder}. Next:
  groundup generate {outcome.place.folder} "class Queue:"        write with it
  groundup evaluate {outcome.place.folder} --data FILE           see how well it predicts a text of yours
  groundup train {outcome.place.folder}/config.yaml --data FOLDER    train one like it on your own text
  groundup plan llama-3-8b --tokens 15T                    see what a large one would take""")
