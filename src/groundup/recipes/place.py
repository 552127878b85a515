"""A run on disk: which file lies where, and what is written to it while the run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.data.corpus import Corpus
from groundup.errors import GroundupError, ModelError, StorageError, writing
from groundup.files import alone, as_path, atomic_write, json_lines, remove, remove_abandoned
from groundup.hub.checkpoints import CHECKPOINTS

Json = Any  # what json.loads returns


@dataclass(frozen=True)
class Place:
    """The folder of a run.

    Attributes:
        folder: where everything lies.
    """

    folder: Path

    @classmethod
    @contextmanager
    def new(cls, folder: Path) -> Generator[Place]:
        """Gives the place of a new run, to this process alone; a run that came to nothing leaves the folder free.

        Raises:
            StorageError: it holds something already, or cannot be made.
        """
        if os.fsencode(folder).decode(errors="replace") != str(folder):  # then safetensors would not open its weights
            raise StorageError(f"{folder} is not written in UTF-8; choose another place")
        place = cls(folder)
        place.check_empty()
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with alone(folder):
            place.check_empty()  # another process may have been here in between
            try:
                yield place
            except GroundupError:
                place._forget_if_empty()  # so that the mended command may take the same folder
                raise

    @classmethod
    @contextmanager
    def open(cls, folder: Path) -> Generator[Place]:
        """Gives the place of a run to this process alone, without what a killed one left half-written.

        Raises:
            ModelError: there is no run.
            StorageError: it cannot be written, or another process works in it.
        """
        place = cls(folder)
        if not os.path.isfile(place.config):
            raise ModelError(f"{folder} is not a run (no config.yaml can be read in it); runs lie in runs/NAME")
        with alone(folder):
            with writing(folder):
                remove_abandoned(folder, names="*")
            yield place

    def check_empty(self) -> None:
        """Makes sure that a new run may lie here.

        Raises:
            StorageError: it holds something already.
        """
        with writing(self.folder):
            if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
                raise StorageError(f"{self.folder} is there already; choose another place, or resume it if it is a run")

    def _forget_if_empty(self) -> None:
        """Removes a run that has come to nothing yet: settings and a tokenizer at most."""
        if self.corpus.exists() or self.plan.exists():
            return
        with suppress(OSError):
            remove(self.tokenizer)
            for file in (self.config, self.spec):
                file.unlink(missing_ok=True)
            self.folder.rmdir()

    @staticmethod
    def free(folder: Path) -> Path:
        """Returns ``folder`` if nothing is there, else the first name like it that is free: ``runs/quickstart-2``."""
        names = (folder.with_name(f"{folder.name}-{i}") for i in range(2, 10_000))
        return next(name for name in (folder, *names) if not name.exists())

    @property
    def config(self) -> Path:
        """Everything resolved, enough to run it again."""
        return self.folder / "config.yaml"

    @property
    def spec(self) -> Path:
        """The model."""
        return self.folder / "spec.json"

    @property
    def plan(self) -> Path:
        """What was predicted."""
        return self.folder / "plan.json"

    @property
    def ledger(self) -> Path:
        """Predicted beside measured."""
        return self.folder / "ledger.jsonl"

    @property
    def metrics(self) -> Path:
        """One line a logged step."""
        return self.folder / "metrics.jsonl"

    @property
    def result(self) -> Path:
        """What came out; it is there when the run is finished."""
        return self.folder / "result.json"

    @property
    def documents(self) -> Path:
        """How well each held-out document is predicted, a line each; not of objectives that predict only parts."""
        return self.folder / "validation.jsonl"

    @property
    def report(self) -> Path:
        """The finished run as a page."""
        return self.folder / "report.html"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's folder."""
        return self.folder / "tokenizer"

    @property
    def corpus(self) -> Path:
        """The tokens' folder."""
        return self.folder / "corpus"

    def corpus_of(self, source: str) -> Path:
        """Returns where the tokens of a run lie that reads ``source``: there, if it is a corpus."""
        return as_path(source) if Corpus.is_there(source) else self.corpus

    @property
    def checkpoints(self) -> Path:
        """The checkpoints' folder."""
        return self.folder / CHECKPOINTS

    def write_json(self, path: Path, data: Json) -> None:
        """Writes a file of the run, whole or not at all."""
        atomic_write(path, json.dumps(data, indent=2) + "\n")

    def log(self, entry: dict[str, Json]) -> None:
        """Adds a line to the metrics."""
        with writing(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def forget_after(self, step: int) -> None:
        """Drops the lines of the metrics after a step, which a resumed run writes anew."""
        kept = [
            json.dumps(entry) + "\n"
            for entry in json_lines(self.metrics)
            if isinstance(entry.get("step"), int) and entry["step"] <= step
        ]
        atomic_write(self.metrics, "".join(kept))
