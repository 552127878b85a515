"""What learns in a run: its model, optimizer and batches as one value that trains, is saved, and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from groundup import devices
from groundup.data.corpus import Corpus
from groundup.recipes.batches import Text
from groundup.recipes.settings import Run
from groundup.training import checkpoint
from groundup.training.budget import Tally
from groundup.training.steps import Step, steps


class Learner:
    """A run's model, optimizer and batches, at one moment of the run.

    Attributes:
        run: the settings.
        device: where it computes.
        model: the weights.
        optimizer: what updates them.
        batches: what they learn from, by number.
        tally: what has been spent so far.
    """

    def __init__(self, run: Run, corpus: Corpus) -> None:
        self.run = run
        self.device = devices.pick_device()
        self.dtype = devices.autocast_dtype(run.precision, self.device)
        self.model = run.model.build(seed=run.seed).to(self.device)
        self.optimizer = run.optimizer.build(self.model, products=self.dtype)
        self.batches = Text(run, corpus).batches(seed=run.seed)
        self.tally = Tally()

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Goes to where a checkpoint was saved.

        Raises:
            CheckpointError: it is of another model or optimizer.
        """
        self.tally = Tally.from_dict(saved.restore(self.model, self.optimizer)["tally"])

    def save(self, folder: Path) -> Path:
        """Writes a checkpoint of this moment into a run's folder of checkpoints and returns where it lies.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """
        return checkpoint.save(
            folder,
            self.tally.steps,
            model=self.model,
            spec=self.run.model,
            optimizer=self.optimizer,
            loop={"tally": self.tally.to_dict()},
        )

    def steps(self) -> Iterator[Step]:
        """Trains to the end of the run's budget, and yields after every update of the weights.

        Raises:
            TrainingError: loss or gradients are not finite.
        """
        for step in steps(
            self.model,
            self.batches,
            self.run.objective.loss,
            self.optimizer,
            self.run.schedule,
            until=self.run.budget,
            start=self.tally,
            accumulate=self.run.accumulate,
            clip=self.run.clip,
            dtype=self.dtype,
            seed=self.run.seed,
        ):
            self.tally = step.tally
            yield step
