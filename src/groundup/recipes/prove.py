"""A proof that a run which is stopped and resumed loses nothing.

From the run's last checkpoint, a few steps are made twice: straight through, and with a stop after each, where
everything is saved, forgotten, built anew and loaded. Every bit of the weights and of the optimizer's state has to be
the same after both. What is written meanwhile lies in a hidden folder of the run that goes afterwards; the run's own
checkpoints are read only.

No clock repeats itself, so the schedule follows the steps and not the time: a budget of time counts as the steps that
it allows at the run's pace. The model runs as it is, not compiled.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup.data.corpus import Corpus
from groundup.errors import CheckpointError
from groundup.files import scratch
from groundup.optim.joint import state_tensors
from groundup.recipes.learner import Learner
from groundup.recipes.place import Place
from groundup.recipes.settings import Run, read_run
from groundup.recipes.watch import Watch
from groundup.training import checkpoint
from groundup.training.budget import Steps, Tally
from groundup.training.checkpoint import Checkpoint, unique_tensors

STEPS = 3

Digests = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What came of the two ways.

    Attributes:
        start: the step at which they begin.
        steps: how many each makes.
        tensors: how many were compared.
        different: the names of those that are not the same.
        repeatable: whether the way straight through gives the same bits each time; if it does not, this machine's
            arithmetic varies and nothing is told about resuming.
    """

    start: int
    steps: int
    tensors: int
    different: tuple[str, ...]
    repeatable: bool

    @property
    def holds(self) -> bool:
        """Whether resuming was shown to lose nothing."""
        return not self.different

    def to_dict(self) -> dict[str, Any]:
        """Returns the proof as plain data."""
        return {
            "proven": self.holds,
            "start_step": self.start,
            "steps": self.steps,
            "tensors": self.tensors,
            "different": list(self.different),
            "repeatable": self.repeatable,
        }

    def __str__(self) -> str:
        """Returns the proof in a sentence."""
        ways = f"{self.steps} steps from step {self.start}, straight through and resumed after each,"
        if self.holds:
            return f"proven: {ways} give the same {self.tensors} tensors of weights and optimizer, bit by bit"
        if not self.repeatable:
            return (
                f"not proven: {ways} differ, but so do two ways straight through: this machine does not repeat itself"
            )
        some = ", ".join(self.different[:3]) + (", ..." if len(self.different) > 3 else "")
        return f"refuted: {ways} differ in {len(self.different)} of {self.tensors} tensors: {some}"


def prove(folder: Path, *, watch: Watch = Watch()) -> Proof:  # noqa: B008 - it has no state
    """Returns whether a run, resumed from its last checkpoint, goes on bit by bit as if it had not been stopped.

    Raises:
        ModelError: there is no run in the folder.
        CheckpointError: it has no checkpoint yet, or its newest one is damaged.
        DataError: its corpus is missing or was changed.
        StorageError: another process works on it, or the folder cannot be written.
    """
    with Place.open(folder) as place:
        run, saved = read_run(place.config), checkpoint.load_latest(place.checkpoints)
        if saved is None:
            raise CheckpointError(f"{folder} has no checkpoint yet; go on with it first: groundup resume {folder}")
        corpus = Corpus.open(place.corpus_of(run.data.source))
        corpus.verify()
        return _proof(run, corpus, saved, place, watch)


def _proof(run: Run, corpus: Corpus, saved: Checkpoint, place: Place, watch: Watch) -> Proof:
    tally = Tally.from_dict(saved.loop()["tally"])
    run = run.replace(budget=Steps(max(round(tally.steps / run.budget.spent(tally)), tally.steps + STEPS)))
    watch.stage(f"{STEPS} steps from step {tally.steps}, straight through")
    straight = _straight(run, corpus, saved)
    watch.stage("The same, saved and resumed after each")
    with scratch(place.folder / "proof") as folder:
        resumed = _resumed(run, corpus, saved, folder)
    different = tuple(name for name in straight if straight[name] != resumed.get(name))
    repeatable = True
    if different:
        watch.stage("Straight through again, to see whether that differs too")
        repeatable = _straight(run, corpus, saved) == straight
    return Proof(start=tally.steps, steps=STEPS, tensors=len(straight), different=different, repeatable=repeatable)


def _straight(run: Run, corpus: Corpus, saved: Checkpoint) -> Digests:
    learner = _restored(run, corpus, saved)
    for _ in islice(learner.steps(), STEPS):
        pass
    return _digests(learner)


def _resumed(run: Run, corpus: Corpus, saved: Checkpoint, folder: Path) -> Digests:
    for _ in range(STEPS):
        saved = _one_more(run, corpus, saved, folder)
    return _digests(_restored(run, corpus, saved))


def _one_more(run: Run, corpus: Corpus, saved: Checkpoint, folder: Path) -> Checkpoint:
    """The checkpoint of the next step; of what made it, nothing stays in memory."""
    learner = _restored(run, corpus, saved)
    next(learner.steps())
    return Checkpoint.open(learner.save(folder))


def _restored(run: Run, corpus: Corpus, saved: Checkpoint) -> Learner:
    learner = Learner(run, corpus)
    learner.restore(saved)
    return learner


def _digests(learner: Learner) -> Digests:
    """A hash of the bytes of every tensor that training changes, by name."""
    tensors = unique_tensors(learner.model) | state_tensors(learner.optimizer)
    return {name: _digest(tensor) for name, tensor in tensors.items()}


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data).hexdigest()
