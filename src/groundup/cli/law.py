"""``groundup plan --fit-law``."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from groundup.cli.options import print_json
from groundup.errors import ConfigError
from groundup.files import as_path

OF_A_MODEL = (".json", ".yaml", ".yml", ".gguf")  # files that are a MODEL, and no run


def law(
    arguments: Sequence[str | None], *, tokens: float | None, as_json: bool, plot: Path | None, html: Path | None
) -> None:
    """Fits a law to the runs among the arguments, and tells it, and what it says of the MODEL among them."""
    from groundup.files import atomic_write
    from groundup.planner.law_plot import write_plot
    from groundup.recipes.ladder import Forecast, fit_law, law_page

    runs, model, settings = sort_out([argument for argument in arguments if argument is not None])
    if tokens is not None and model is None:
        raise click.UsageError("--tokens says how long a bigger MODEL is trained; name it after the runs.")
    forecast = None if model is None else _design(model, settings, tokens)
    found = fit_law(runs)
    if model is not None and forecast is not None:
        params, length = forecast
        told = Forecast(name=model, params=params, tokens=length, loss=found.fit.loss(params, length))
        found = replace(found, forecast=told)
    if plot is not None:
        write_plot(found.fit, plot)
    if html is not None:
        atomic_write(html, law_page(found))
    if as_json:
        print_json(found.to_dict())
    else:
        click.echo(str(found))


def sort_out(arguments: Sequence[str]) -> tuple[list[Path], str | None, list[str]]:
    """Returns which arguments are runs, the one that is a MODEL, and its settings.

    Raises:
        ConfigError: there are no runs, or more than one MODEL.
    """
    runs: list[Path] = []
    models: list[str] = []
    settings: list[str] = []
    for argument in arguments:
        path = as_path(argument)
        if path.is_dir() or (path.exists() and path.suffix not in OF_A_MODEL and ".py:" not in argument):
            runs.append(path)
        elif glob.has_magic(argument) and "=" not in argument:
            runs += [Path(name) for name in sorted(glob.glob(str(path)))]
        elif "=" in argument:
            settings.append(argument)
        else:
            models.append(argument)
    if len(models) > 1:
        raise ConfigError(f"{' and '.join(models)} are no folders of runs; give one MODEL at most")
    if not runs:
        raise ConfigError("there are no runs to fit a law to; name their folders, such as runs/*")
    return runs, models[0] if models else None, settings


def _design(model: str, settings: Sequence[str], tokens: float | None) -> tuple[float, float]:
    """The parameters and tokens of the run that is asked for."""
    from groundup.hub.resolve import spec
    from groundup.planner import books
    from groundup.planner.assumptions import CHINCHILLA_TOKENS_PER_PARAM
    from groundup.recipes.settings import model_with

    params = books.active_params(model_with(spec(model), settings))
    return params, tokens or CHINCHILLA_TOKENS_PER_PARAM * params
