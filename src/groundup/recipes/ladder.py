"""A ladder of finished runs on disk, and the scaling law that is fitted to them.

A run is read from what it left: parameters from its plan, tokens and loss from its result, else from the steps that it
logged. Runs are compared only if they read the same text in the same tokens and rows of the same length.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from groundup.errors import ConfigError
from groundup.files import as_path, json_lines
from groundup.planner import units
from groundup.planner.audit import number, read_plan
from groundup.planner.fitting import DRAWS, Fit, Interval, fit
from groundup.planner.frontiers import Point
from groundup.planner.law_plot import picture
from groundup.recipes import charts
from groundup.recipes.place import Place

LAST = 0.1  # of a run's tokens, over which its training loss is averaged
FINISHED = 0.99  # of the planned tokens, from which on a run without a result is taken for finished
VALIDATION, TRAINING = "the loss on text that was held out", "the training loss, its mean over the last tenth"


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """Runs that a law can be fitted to.

    Attributes:
        points: the runs.
        loss: which loss theirs is.
        left_out: why other folders were not taken, by folder.
        notes: what a reader should know.
    """

    points: tuple[Point, ...]
    loss: str
    left_out: dict[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a law says of a run that is not made yet."""

    name: str
    params: float
    tokens: float
    loss: Interval


@dataclass(frozen=True, kw_only=True)
class Law:
    """A fitted law with where it comes from.

    Attributes:
        fit: the law.
        ladder: the runs.
        forecast: for a bigger run, where one was named.
    """

    fit: Fit
    ladder: Ladder
    forecast: Forecast | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the law as plain data."""
        said = {"loss": self.ladder.loss, "left_out": self.ladder.left_out, "notes": list(self.ladder.notes)}
        data = self.fit.to_dict() | said
        if self.forecast is not None:
            told = self.forecast
            data["forecast"] = {
                "model": told.name,
                "params": told.params,
                "tokens": told.tokens,
                "predicted_loss": told.loss.value,
                "predicted_loss_low": told.loss.low,
                "predicted_loss_high": told.loss.high,
            }
        return data

    def __str__(self) -> str:
        """Returns the tables."""
        lines = [str(self.fit), "", f"loss: {self.ladder.loss}", *self.ladder.notes]
        lines.append(
            f"95% of {len(self.fit.draws)} fits to runs drawn anew; a run is {units.percent(self.fit.noise)} off the "
            "law in the middle case"
        )
        lines += [f"left out: {folder}: {why}" for folder, why in self.ladder.left_out.items()]
        if self.forecast is not None:
            told = self.forecast
            most = max(point.flops for point in self.fit.points)
            beyond = 6 * told.params * told.tokens / most
            lines += [
                "",
                f"{told.name}: {units.count(told.params)} parameters on {units.count(told.tokens)} tokens: predicted "
                f"loss {told.loss.value:.3f} ({told.loss.low:.3f} to {told.loss.high:.3f}), "
                f"{beyond:.3g} times the operations of the largest run",
            ]
        return "\n".join(lines)


def fit_law(runs: Iterable[Path | str], *, draws: int = DRAWS) -> Law:
    """Returns the scaling law of a ladder of runs.

    Args:
        runs: their folders; what is no finished run is left out and named.
        draws: how many fits to runs drawn anew tell how sure it is.

    Raises:
        ConfigError: too few runs are left, or they are of different texts, vocabularies or contexts.
    """
    ladder = read_ladder(runs)
    try:
        return Law(fit=fit(ladder.points, draws=draws), ladder=ladder)
    except ConfigError as fault:
        if not ladder.left_out:
            raise
        few = [f"{folder} ({why})" for folder, why in list(ladder.left_out.items())[:4]]
        raise ConfigError(f"{fault}; left out: {', '.join(few)}") from fault


def read_ladder(runs: Iterable[Path | str]) -> Ladder:
    """Returns the finished runs among these folders; the errors are those of `fit_law`."""
    folders = list(dict.fromkeys(as_path(run) for run in runs))
    left_out: dict[str, str] = {}
    found = []
    for folder in folders:
        read = _read(folder)
        if isinstance(read, str):
            left_out[str(folder)] = read
        else:
            found.append(read)
    _check_same(found)
    held_out = all(run.validation is not None for run in found)
    points = []
    for run in found:
        loss = run.validation if held_out else run.training
        if loss is None:
            left_out[str(run.folder)] = "it has no training loss, and others none on text that was held out"
        elif not 0 < loss < math.inf:
            left_out[str(run.folder)] = f"its loss is {loss}"
        else:
            curve = run.curve if len(run.curve) > 1 else ()
            points.append(Point(name=run.name, params=run.params, tokens=run.tokens, loss=loss, curve=curve))
    again = [run.name for run in found if run.unique and run.tokens > 1.001 * run.unique]
    notes = [f"{', '.join(again)} read the text more than once, which the law takes for new text"] if again else []
    return Ladder(
        points=tuple(points), loss=VALIDATION if held_out else TRAINING, left_out=left_out, notes=tuple(notes)
    )


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What one folder says."""

    folder: Path
    params: float
    tokens: float
    unique: float | None
    validation: float | None
    training: float | None
    curve: tuple[tuple[float, float], ...]
    reads: dict[str, str]

    @property
    def name(self) -> str:
        return self.folder.name or str(self.folder)


def _read(folder: Path) -> _Run | str:
    """The run in a folder, or why there is none."""
    if not folder.is_dir():
        return "it is not a folder" if folder.exists() else "it is not there"
    place = Place(folder)
    plan, logged = read_plan(place.plan), json_lines(place.metrics)
    result = read_plan(place.result)
    if not plan and not result and not place.config.is_file():
        return "it is not a run"
    recorded = {line.get("quantity"): number(line.get("measured")) for line in json_lines(place.ledger)}
    params = number(plan.get("active_params")) or number(plan.get("params")) or recorded.get("parameters")
    if not params:
        return "nobody says how many parameters it has"
    steps = [(t, x) for line in logged if (t := number(line.get("tokens"))) and (x := number(line.get("loss")))]
    tokens = number(_inside(result, "tally", "tokens")) or (steps[-1][0] if steps else None)
    if tokens is None:
        return "it has trained on nothing yet"
    planned = number(plan.get("tokens"))
    if not result and (planned is None or tokens < FINISHED * planned):
        share = "" if planned is None else f": {units.percent(tokens / planned)} of its tokens"
        return f"it is not finished{share}"
    validation = _inside(result, "validation", "loss")
    if isinstance(validation, float) and not math.isfinite(validation):
        return "its loss is not finite"
    scored = [x for line in logged if (x := number(_inside(line, "validation", "loss")))]
    last = [x for t, x in steps if t >= (1 - LAST) * tokens]
    settings = _settings(place)
    return _Run(
        folder=folder,
        params=params,
        tokens=tokens,
        unique=_unique(place, settings),
        validation=number(validation) or (scored[-1] if scored and not result else None),
        training=fmean(last) if last else None,
        curve=_smooth(steps),
        reads=_reads(place, plan, settings),
    )


def _smooth(steps: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Training losses, each with the mean of those logged over the last fifth of the tokens up to it."""
    return tuple(
        (at, fmean(x for t, x in steps[: i + 1] if t >= 0.8 * at)) for i, (at, _) in enumerate(steps) if i >= 4
    )


def _settings(place: Place) -> Mapping[str, Any]:
    try:
        data = yaml.safe_load(place.config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return data if isinstance(data, dict) else {}


def _reads(place: Place, plan: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, str]:
    """What must be the same for losses to be comparable, as far as the run says it."""
    said = {
        "text": _inside(settings, "data", "source"),
        "context": plan.get("context"),
        "objective": _inside(settings, "objective", "kind") or settings.get("objective"),
        "vocabulary": _vocabulary(place),
    }
    return {name: str(value) for name, value in said.items() if value is not None}


def _vocabulary(place: Place) -> str | None:
    try:
        return hashlib.sha256((place.tokenizer / "tokenizer.json").read_bytes()).hexdigest()[:8]
    except OSError:
        return None


def _unique(place: Place, settings: Mapping[str, Any]) -> float | None:
    """How many tokens there are to learn from."""
    source = _inside(settings, "data", "source")
    folder = place.corpus_of(source) if isinstance(source, str) and source else place.corpus
    return number(_inside(read_plan(folder / "corpus.json"), "splits", "train", "tokens"))


def _inside(data: Any, *names: str) -> Any:
    for name in names:
        data = data.get(name) if isinstance(data, Mapping) else None
    return data


def _check_same(runs: Sequence[_Run]) -> None:
    """Refuses runs whose losses are not of the same text, tokens and context."""
    for what in ("text", "vocabulary", "context", "objective"):
        by_value: dict[str, str] = {}
        for run in runs:
            if what in run.reads:
                by_value.setdefault(run.reads[what], run.name)
        if len(by_value) > 1:
            told = ", ".join(f"{run} has {value}" for value, run in list(by_value.items())[:3])
            raise ConfigError(f"losses of a different {what} do not make one law: {told}; give runs of the same {what}")


def law_page(law: Law) -> str:
    """Returns a law as a page in one file: the picture, then the tables.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    drawing = picture(law.fit).decode()
    drawing = drawing[drawing.index("<svg") :]
    return charts.page(
        "groundup: a scaling law", ["<h1>A law of your own</h1>", drawing, f"<pre>{escape(str(law))}</pre>"]
    )
