"""``groundup plan``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from groundup.cli import serving
from groundup.cli.options import COUNT, Folder, Number, as_json, offline, print_json

if TYPE_CHECKING:
    from groundup.planner.fit import Fit
    from groundup.planner.plan import Plan


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
@click.option("--offload", is_flag=True, default=None, help="The optimizer's state, or served layers, lie on the host.")
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
@click.option("--serve", is_flag=True, help="Plan generating text instead of training.")
@click.option("--batch", type=COUNT, help="Serving: texts side by side; by default 1.")
@click.option("--prompt", type=COUNT, help="Serving: tokens of each prompt; by default half of the context.")
@click.option("--weights", help="Serving: fewer bits for each weight, such as int8, int4, nf4, q8_0 or q4_k.")
@click.option("--explain", metavar="FIGURE", help="Tell where a figure comes from, such as peak_bytes; or all.")
@click.option("--fit-law", is_flag=True, help="Fit a scaling law to finished runs, whose folders are the arguments.")
@click.option("--plot", type=Folder(), metavar="FILE", help="Draw the fitted law: .svg, .png or .pdf.")
@click.option("--html", type=Folder(), metavar="FILE", help="Write the plan, or the fitted law, as a page with plots.")
@as_json
@offline
def plan(
    model: str | None,
    settings: tuple[str, ...],
    as_json: bool,
    explain: str | None,
    html: Path | None,
    fit_law: bool,
    plot: Path | None,
    optimizer: str,
    objective: str | None,
    memory: str | None,
    **given: Any,
) -> None:
    """Tell what training MODEL will take: parameters, operations, memory by component, time, energy, money.

    Settings change the model, as in layers=6 or vocab=8192. With a budget in place of --tokens it is the most tokens
    that it allows, and without MODEL the LLaMA that makes the best use of it.

    With --serve it is what generating takes: memory, time to the first token and for each, how many texts fit. With
    --fit-law, a law of the loss is fitted to runs, as in --fit-law runs/* gpt2 --tokens 2B, which tells the loss of a
    bigger one too.

    Example:  groundup plan gpt2 --tokens 2B --context 1024
    """
    if fit_law:
        from groundup.cli.law import law

        law((model, *settings), tokens=given["tokens"], as_json=as_json, plot=plot, html=html)
        return
    if plot is not None:
        raise click.UsageError("--plot draws a law; give --fit-law and the folders of runs.")
    if serving.asked(given):
        serving.plan(model, settings, as_json=as_json, given=given)
        return
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
        others = [*limits[:1], *(["--explain"] if explain else []), *(["--html"] if html else [])]
        if others:
            raise click.UsageError(f"{others[0]} and --fit ask for different things; give one of them.")
        _show(fit(design, memory, **asked), as_json=as_json)
        return
    if budgets:
        ((budget, amount),) = budgets.items()
        made = within(design, budget=budget, amount=amount, **asked)
    elif design is None:
        raise click.UsageError("Missing argument 'MODEL'; or give a budget, such as --max-usd 500, or --fit 24GB.")
    else:
        made = make(design, **asked)
    if html is not None:
        from groundup.recipes.plan_page import plan_page, write_page

        write_page(plan_page(made, title=" ".join((model or "", *settings)).strip() or None), html)
    if explain is not None:
        _explain(made, explain, as_json=as_json)
    elif as_json or html is None:
        _show(made, as_json=as_json)
    else:
        click.echo(f"{html} is written; open it in a browser")


def _show(made: Plan | Fit, *, as_json: bool) -> None:
    if as_json:
        print_json(made.to_dict())
    else:
        click.echo(str(made))


def _explain(made: Plan, figure: str, *, as_json: bool) -> None:
    """Prints where a figure comes from; ``all`` of them where that is asked for."""
    from groundup.planner.explain import derivations

    told = list(derivations(made)) if figure == "all" else [made.explain(figure)]
    if as_json:
        found = [derivation.to_dict() for derivation in told]
        print_json(found if figure == "all" else found[0])
    else:
        click.echo("\n\n".join(map(str, told)))
