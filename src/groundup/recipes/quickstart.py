"""The main job in small, offline, on this machine: look, read, plan, train, evaluate, sample, audit.

The corpus is the source of the standard library, which every Python has; the model is a small LLaMA; the time is
given by the clock, so that the job takes as long on a slow machine as on a fast one and only its result differs.
"""

from __future__ import annotations

from pathlib import Path

from groundup.errors import ConfigError
from groundup.evals import compressors
from groundup.families.llama import llama
from groundup.optim.optimizers import AdamW, Muon
from groundup.optim.schedules import WSD
from groundup.planner.machine import calibrate
from groundup.recipes.audit import audit
from groundup.recipes.doctor import describe
from groundup.recipes.place import Place
from groundup.recipes.pretrain import Outcome, pretrain, resume
from groundup.recipes.settings import Data, Run, read_run
from groundup.recipes.watch import Watch
from groundup.training.budget import Seconds

PROMPTS = ("def is_prime(n):\n    ", "class Stack:\n    def __init__(self", "import os\nimport sys\n\ndef main(")
TRAIN_SECONDS = 195.0


def design(*, seconds: float = TRAIN_SECONDS, source: str = "python") -> Run:
    """Returns the quickstart's run: about five million parameters, sized for two cores and three minutes."""
    return Run(
        model=llama(width=256, layers=6, heads=4, hidden=704, vocab=4096, context=256, tied=True),
        data=Data(source=source),
        optimizer=Muon(lr=0.02, adamw=AdamW(lr=3e-3, decay=0.0)),
        schedule=WSD(warmup=0.01, decay=0.4),
        budget=Seconds(seconds),
        rows=16,
        save_seconds=20.0,
        evaluations=1,
        prompts=PROMPTS,
    )


def quickstart(folder: Path, *, run: Run, watch: Watch, go_on: bool = False) -> Outcome:
    """Does the whole job and tells a watcher of it.

    Args:
        folder: a new folder, or one that an earlier quickstart left unfinished.
        run: what `design` returned.
        watch: who hears of it.
        go_on: whether the folder holds a run to go on with.

    Raises:
        GroundupError: the folder cannot be written, or the source cannot be read.
    """
    watch.stage("This machine")
    watch.say("\n".join(f"{name:22}  {value}" for name, value in describe(calibrate(fresh=True)).items()))
    outcome = resume(folder, watch=watch) if go_on else pretrain(run, folder, watch=watch)
    watch.stage("How well it predicts the files that it has not seen")
    watch.table("bits per byte, lower is better", comparison(outcome))
    watch.stage("What it writes")
    for text in outcome.samples:
        watch.result(f"{text}\n")
    watch.stage("The plan beside what was measured")
    watch.result(str(audit(outcome.place.folder)))
    return outcome


def comparison(outcome: Outcome) -> list[tuple[str, str]]:
    """Returns the rows of a table: this model's bits per byte among those of general compressors, best first."""
    mine, corpus = outcome.score.bits_per_byte, outcome.corpus
    bits = {} if mine is None else {"this model": mine}
    bits |= compressors.beside(outcome.score, corpus.split("valid").documents(), corpus.tokenizer)
    ordered = sorted(bits.items(), key=lambda item: item[1])
    return [("", "bits/byte"), *((name, f"{value:.3f}") for name, value in ordered)]


def unfinished(folder: Path) -> bool:
    """Returns whether a folder holds a run that was stopped before its end."""
    place = Place(folder)
    return place.config.is_file() and not place.result.is_file()


def check_same(folder: Path, *, seconds: float | None = None, source: str | None = None) -> None:
    """Makes sure that a run which is to go on is the one that was asked for.

    Args:
        folder: where it lies.
        seconds: how long it is to train; None means that nobody asked.
        source: what it is to read; None means that nobody asked.

    Raises:
        ConfigError: it reads another text, or has another time.
    """
    begun = read_run(Place(folder).config)
    time = None if seconds is None else Seconds(seconds)
    for name, was, asked in (("data", begun.data.source, source), ("time", begun.budget, time)):
        if asked not in (None, was):
            raise ConfigError(
                f"{folder} was begun with {name}={was} and not {asked}; leave --{name} out, or give --new"
            )
