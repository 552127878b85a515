"""``groundup train`` and ``groundup resume``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from groundup.cli import EXIT_FAULT, resumable
from groundup.cli.options import Duration, Folder, Number, as_json, offline, print_json, tensorboard


@click.command()
@click.argument("model", metavar="MODEL|RECIPE")
@click.argument("settings", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--data", "source", help="A file, a folder, python or a dataset id.  [default: python]")
@click.option("--time", type=Duration(), help="How long to train, such as 90s, 30m or 2h; a number alone is minutes.")
@click.option("--tokens", type=Number(), help="How many tokens to train on, such as 2e9 or 2B.")
@click.option("--steps", type=int, help="How many updates to make.")
@click.option("--max-hours", type=Number(), help="Train for as long.")
@click.option("--max-usd", type=Number(), help="Train for as much money, by --usd-per-hour.")
@click.option("--usd-per-hour", type=Number(), help="What an hour of this machine costs.")
@click.option("--max-kwh", type=Number(), help="Train with as much energy, by --watts.")
@click.option("--watts", type=Number(), help="What this machine draws.")
@click.option("--out", type=Folder(), help="The run's folder.  [default: runs/MODEL]")
@click.option("--force", is_flag=True, help="Try a run that does not fit in the memory, by its plan.")
@tensorboard
@as_json
@offline
def train(
    model: str, settings: tuple[str, ...], out: Path | None, force: bool, tensorboard: bool, as_json: bool, **asked: Any
) -> None:
    """Train MODEL, a RECIPE (groundup list recipes), or the run of a config.yaml, on text, from the first weight on.

    Weights that MODEL has are not used, and a tokenizer is trained on the text unless data.tokenizer names one.

    Settings are dotted, as in optimizer.lr=3e-4 rows=32 layers.*.mix.mixer.position.theta=1e6. Those of the file give
    way to those of the environment, GROUNDUP_SET="rows=8 optimizer.lr=3e-4", and these to those of the command line.

    What is learnt is the usual of the model's kind, or objective=NAME: a decoder predicts the next token, an encoder
    fills in masked ones.

    Example:  groundup train smollm2-135m --data books/ --time 2h optimizer=muon rows=4 context=512
    """
    from groundup.cli.draw import Drawing
    from groundup.recipes.pretrain import check, pretrain
    from groundup.recipes.train import ENVIRONMENT, resolve_run, run_folder

    environment = os.environ.get(ENVIRONMENT, "")
    run = resolve_run(model, settings=settings, environment=environment, **asked)
    folder = out or run_folder(model)
    with resumable(folder), Drawing(as_json=as_json) as drawing:
        check(run, folder, tensorboard=tensorboard)
        drawing.run(run, folder)
        drawing.outcome(pretrain(run, folder, watch=drawing, tensorboard=tensorboard, force=force))


@click.command()
@click.argument("run", type=Folder())
@offline
@click.option("--prove", is_flag=True, help="Train nothing; show that stopping and resuming changes no bit.")
@tensorboard
@as_json
def resume(run: Path, prove: bool, tensorboard: bool, as_json: bool) -> None:
    """Go on with RUN, a folder, where it was stopped.

    With --prove, a few steps are made from the last checkpoint without a stop, and again with a stop after each, and
    the weights and the optimizer's state of both are compared bit by bit. The run stays as it is. Exits with 1 if they
    differ.

    Example:  groundup resume runs/quickstart
    """
    from groundup.cli.draw import Drawing
    from groundup.recipes import prove as proof
    from groundup.recipes.pretrain import resume as go_on

    with resumable(run), Drawing(as_json=as_json) as drawing:
        if not prove:
            drawing.outcome(go_on(run, watch=drawing, tensorboard=tensorboard))
            return
        found = proof.prove(run, watch=drawing)
    if as_json:
        print_json({"run": str(run), **found.to_dict()})
    else:
        click.echo(f"{run}: {found}")
    if not found.holds:
        raise click.exceptions.Exit(EXIT_FAULT)
