"""``groundup plan``."""

from __future__ import annotations

from typing import Any

import click

from groundup.cli.options import COUNT, Number, as_json, offline, print_json


@click.command()
@click.argument("model", required=False)
@click.argument("settings", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--tokens", type=Number(), help="Tokens to train on, such as 2e9 or 2B; by default 20 per parameter.")
@click.option("--batch-tokens", type=Number(), help="Tokens in a step, such as 0.5M.")
@click.option("--rows", type=COUNT, help="Sequences in a micro-batch.")
@click.option("--context", type=COUNT, help="Tokens in a sequence; by default the model's context.")
@click.option(
    "--precision", type=click.Choice(["auto", "bf16", "fp16", "fp32", "fp8"]), default="auto", show_default=True
)
@click.option("--optimizer", type=click.Choice(["adamw", "muon"]), default="adamw", show_default=True)
@click.option("--objective", help="What is learnt, such as masked; by default a target for each token.")
@click.option("--on", default="this", show_default=True, help="This machine, or others, such as 8xH100-SXM.")
@click.option("--layout", default="auto", show_default=True, help="How devices share the work: dp=64,tp=8,pp=2.")
@click.option(
    "--checkpointing",
    type=click.Choice(["none", "layers", "selective", "full"]),
    help="What layers make again in the backward, to keep less.",
)
@click.option("--offload", is_flag=True, default=None, help="Keep the optimizer's state in the host's memory.")
@click.option("--region", help="Whose electricity it is, such as FR, US-CA or gcp:europe-west4.")
@click.option("--watts", type=float, help="What each device draws under load, for the energy.")
@click.option("--watts-cap", type=float, help="What each device may draw: less power costs less speed.")
@click.option(
    "--pue", type=float, help="The centre's energy over its devices'; by default a cloud's of --region, or 1."
)
@click.option("--embodied", is_flag=True, default=None, help="Tell the carbon of making the devices too.")
@click.option("--usd-per-hour", type=float, help="What an hour of each device costs.")
@click.option("--flops", type=Number(), help="Train with as many operations, such as 1e21.")
@click.option("--fit", "memory", help="Find what fits in a memory, such as 24GB; without MODEL, the largest LLaMA.")
@click.option("--max-hours", type=Number(), help="Train for as long.")
@click.option("--max-usd", type=Number(), help="Train for as much money.")
@click.option("--max-kwh", type=Number(), help="Train with as much energy.")
@click.option("--max-co2-kg", type=Number(), help="Train with as much carbon.")
@as_json
@offline
def plan(
    model: str | None,
    settings: tuple[str, ...],
    as_json: bool,
    optimizer: str,
    objective: str | None,
    memory: str | None,
    **given: Any,
) -> None:
    """Tell what training MODEL will take: parameters, operations, memory by component, time, energy, money.

    Settings change the model, as in layers=6 or vocab=8192. With a budget in place of --tokens it is the most tokens
    that it allows, and without MODEL the LLaMA that makes the best use of it.

    Example:  groundup plan gpt2 --tokens 2B --context 1024
    """
    from groundup.hub.resolve import spec
    from groundup.objectives.usual import named
    from groundup.optim.optimizers import Optimizer
    from groundup.planner.budget import BUDGETS, within
    from groundup.planner.fit import fit
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
    if memory is not None:
        if budgets:
            raise click.UsageError(f"{limits[0]} and --fit ask for different things; give one of them.")
        made = fit(design, memory, **asked)
    elif budgets:
        ((budget, amount),) = budgets.items()
        made = within(design, budget=budget, amount=amount, **asked)
    elif design is None:
        raise click.UsageError("Missing argument 'MODEL'; or give a budget, such as --max-usd 500, or --fit 24GB.")
    else:
        made = make(design, **asked)
    if as_json:
        print_json(made.to_dict())
    else:
        click.echo(str(made))
