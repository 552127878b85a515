"""Training from Python: a model, a source and a budget, and everything else at its default."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.errors import ConfigError, SpecError
from groundup.evals.perplexity import Score
from groundup.files import as_path
from groundup.hub.resolve import spec as resolve
from groundup.infer.language_model import LanguageModel
from groundup.infer.load import as_called
from groundup.model.model import Model
from groundup.recipes import quickstart
from groundup.recipes.place import Place
from groundup.recipes.pretrain import Outcome, pretrain
from groundup.recipes.settings import Data, Run, is_run, read_run, with_overrides
from groundup.recipes.watch import Watch
from groundup.training.budget import Budget, Seconds, Steps, Tokens, hours, kwh, usd

RECIPES: dict[str, Callable[[], Run]] = {"quickstart": quickstart.design}  # runs that need no more than their name
ENVIRONMENT = "GROUNDUP_SET"  # the variable that holds settings for every run


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished run.

    Attributes:
        folder: where it lies; ``groundup.load(folder)`` loads it again.
        model: the trained model.
        score: how well it predicts the text that was held out.
    """

    folder: Path
    model: LanguageModel
    score: Score


def train(
    model: str | Path | Model,
    *,
    data: str | Path | Data,
    budget: Budget,
    folder: str | Path | None = None,
    watch: Watch = Watch(),  # noqa: B008 - it has no state
    tensorboard: bool = False,
    force: bool = False,
    **settings: Any,
) -> Trained:
    """Trains a model on a text and returns it with its score.

    Args:
        model: any MODEL; its weights, if it has some, are not used.
        data: a file, a folder, ``python`` or a Hugging Face dataset id; or a `Data` that says more of it.
        budget: how long: ``hours(1)``, ``tokens(2e9)``, ``updates(1000)``.
        folder: where the run will lie; None means a new folder in ``runs/``.
        watch: who hears how it goes.
        tensorboard: whether events for TensorBoard are written beside the metrics.
        force: whether a run that does not fit in the memory, by its plan, is tried anyway.
        **settings: other fields of `groundup.recipes.settings.Run`, such as ``rows=32`` or ``objective=Masked()``.

    Raises:
        GroundupError: something given does not fit; the message says what to change.
    """
    if not isinstance(budget, Budget):
        raise ConfigError(f"budget={budget!r} is no budget; give one, such as gu.updates(1000) or gu.hours(1)")
    source = data if isinstance(data, Data) else Data(source=str(data))
    run = Run.from_dict({"model": resolve(model), "data": source, "budget": budget} | settings)
    place = run_folder(model) if folder is None else as_path(folder)
    return trained(pretrain(run, place, watch=watch, tensorboard=tensorboard, force=force))


def trained(outcome: Outcome) -> Trained:
    """Returns the model and the score of a finished run."""
    model = as_called(outcome.model, tokenizer=outcome.corpus.tokenizer)
    return Trained(folder=outcome.place.folder, model=model, score=outcome.score)


def run_folder(model: str | Path | Model) -> Path:
    """Returns the first free folder in ``runs/`` that is named after a MODEL."""
    if isinstance(model, Model):
        name = "model"
    elif (path := Path(str(model).partition(".py:")[0])).suffix in (".yaml", ".yml", ".json", ".py"):
        name = path.absolute().parent.name if path.stem == "config" else path.stem
    else:
        name = path.name
    return Place.free(Path("runs") / (name or "model"))


def resolve_run(
    model: str,
    *,
    settings: Iterable[str] = (),
    environment: str = "",
    source: str | None = None,
    time: float | None = None,
    tokens: float | None = None,
    steps: int | None = None,
    max_hours: float | None = None,
    max_usd: float | None = None,
    usd_per_hour: float | None = None,
    max_kwh: float | None = None,
    watts: float | None = None,
) -> Run:
    """Returns the run that a command line describes.

    A file's settings give way to those of the environment, these to the options, and these to ``settings``.

    Args:
        model: any MODEL, the config.yaml of a run, or the name of a recipe.
        settings: overrides of the form ``optimizer.lr=3e-4``.
        environment: such overrides too, as GROUNDUP_SET has them: parted and quoted as in a shell.
        source: what it reads.
        time: how long it trains, in seconds.
        tokens: how many tokens it trains on.
        steps: how many updates it makes.
        max_hours: how long it trains.
        max_usd: for how much money it trains.
        usd_per_hour: what an hour costs.
        max_kwh: with how much energy it trains.
        watts: what the machine draws.

    Raises:
        ConfigError: a setting that does not exist, or more than one budget, or none, or one that cannot be told.
    """
    budgets: list[Budget] = [] if time is None else [Seconds(time)]
    budgets += [] if tokens is None else [Tokens(int(tokens))]
    budgets += [] if steps is None else [Steps(steps)]
    budgets += [] if max_hours is None else [hours(max_hours)]
    if max_usd is not None:
        budgets.append(
            usd(max_usd, per_hour=_known(usd_per_hour, "--max-usd needs what an hour costs: --usd-per-hour"))
        )
    if max_kwh is not None:
        budgets.append(kwh(max_kwh, watts=_known(watts, "--max-kwh needs what the machine draws: --watts")))
    if len(budgets) > 1:
        raise ConfigError("a run has one budget; give one of --time, --tokens, --steps and --max-...")
    file = Path(model)
    if model in RECIPES:
        run = RECIPES[model]()
    elif file.suffix in (".yaml", ".yml") and is_run(file):
        run = read_run(file)
    else:
        design = resolve(model)
        if not budgets:
            raise ConfigError("a run needs a budget; give --time 30m, --tokens 2B or --steps 1000")
        run = Run(model=design, budget=budgets[0])
    run = _with_environment(run, environment)
    if budgets:
        run = run.replace(budget=budgets[0])
    if source is not None:
        run = run.replace(data=run.data.replace(source=source))
    return with_overrides(run, settings)


def _known(figure: float | None, otherwise: str) -> float:
    if figure is None:
        raise ConfigError(otherwise)
    return figure


def _with_environment(run: Run, text: str) -> Run:
    try:
        return with_overrides(run, shlex.split(text))
    except (ConfigError, SpecError) as fault:
        raise type(fault)(f"{ENVIRONMENT}: {fault}") from fault
    except ValueError as fault:
        raise ConfigError(f"{ENVIRONMENT}={text!r} is not quoted as a shell would have it: {fault}") from fault
