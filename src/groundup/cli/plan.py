"""``groundup plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from groundup.cli.options import COUNT, Folder, Number, as_json, offline, print_json


@click.command()
@click.argument("model", required=False)
@click.argument("settings", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--tokens", type=Number(), help="Tokens to train on, such as 2e9 or 2B; by default 20 per parameter.")
@click.option("--batch-tokens", type=Number(), help="Tokens in a step, such as 0.5M.")
@click.option("--rows", type=COUNT, help="Sequences in a micro-batch.")
@click.option("--context", type=COUNT, help="Tokens in a sequence; by default the model's context.")
@click.option("--precision", type=click.Choice(["auto", "bf16", "fp32"]), default="auto", show_default=True)
@click.option("--optimizer", type=click.Choice(["adamw", "muon"]), default="adamw", show_default=True)
@click.option("--objective", help="What is learnt, such as masked; by default a target for each token.")
@click.option("--on", default="this", show_default=True, help="This machine, or others, such as 8xH100-SXM.")
@click.option("--layout", default="auto", show_default=True, help="How devices share the work: dp=64,tp=8,pp=2.")
@click.option("--region", help="Whose electricity it is, such as FR, US-CA or gcp:europe-west4.")
@click.option("--watts", type=float, help="What each device draws under load, for the energy.")
@click.option("--usd-per-hour", type=float, help="What an hour of each device costs.")
@click.option("--flops", type=Number(), help="Train with as many operations, such as 1e21.")
@click.option("--max-hours", type=Number(), help="Train for as long.")
@click.option("--max-usd", type=Number(), help="Train for as much money.")
@click.option("--max-kwh", type=Number(), help="Train with as much energy.")
@click.option("--max-co2-kg", type=Number(), help="Train with as much carbon.")
@click.option("--fit-law", is_flag=True, help="Fit a scaling law to finished runs, whose folders are the arguments.")
@click.option("--plot", type=Folder(), metavar="FILE", help="Draw the fitted law: .svg, .png or .pdf.")
@click.option("--html", type=Folder(), metavar="FILE", help="Write the fitted law as a page.")
@as_json
@offline
def plan(
    model: str | None,
    settings: tuple[str, ...],
    as_json: bool,
    fit_law: bool,
    plot: Path | None,
    html: Path | None,
    optimizer: str,
    objective: str | None,
    **given: Any,
) -> None:
    """Tell what training MODEL will take: parameters, operations, memory by component, time, energy, money.

    Settings change the model, as in layers=6 or vocab=8192. With a budget in place of --tokens it is the most tokens
    that it allows, and without MODEL the LLaMA that makes the best use of it.

    With --fit-law, a law of the loss is fitted to runs, as in --fit-law runs/* gpt2 --tokens 2B, which tells the loss
    of a bigger one too.

    Example:  groundup plan gpt2 --tokens 2B --context 1024
    """
    if fit_law:
        from groundup.cli.law import law

        law((model, *settings), tokens=given["tokens"], as_json=as_json, plot=plot, html=html)
        return
    if plot is not None or html is not None:
        raise click.UsageError("--plot and --html draw a law; give --fit-law and the folders of runs.")
    from groundup.hub.resolve import spec
    from groundup.objectives.usual import named
    from groundup.optim.optimizers import Optimizer
    from groundup.planner.budget import BUDGETS, within
    from groundup.planner.plan import plan as make
    from groundup.recipes.settings import model_with

    asked = {name: value for name, value in given.items() if value is not None}
    if objective is not None:
        asked["objective"] = named(objective)
    design = None if model is None else model_with(spec(model), settings)
    budgets = {name: asked.pop(name) for name in BUDGETS if name in asked}
    limits = [f"--{name.replace('_', '-')}" for name in (*budgets, *(["tokens"] if "tokens" in asked else []))]
    if len(limits) > 1:
        raise click.UsageError(f"{' and '.join(limits)} each say how long to train; give one of them.")
    asked["optimizer"] = Optimizer.from_dict({"kind": optimizer})
    if budgets:
        ((budget, amount),) = budgets.items()
        made = within(design, budget=budget, amount=amount, **asked)
    elif design is None:
        raise click.UsageError("Missing argument 'MODEL'; or give a budget, such as --max-usd 500.")
    else:
        made = make(design, **asked)
    if as_json:
        print_json(made.to_dict())
    else:
        click.echo(str(made))
