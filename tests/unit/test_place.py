"""A run's folder takes what a killed process left, and its page whatever the metrics hold."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from groundup.errors import ModelError, StorageError
from groundup.evals.perplexity import Score
from groundup.families.llama import llama
from groundup.files import alone
from groundup.recipes.place import Place
from groundup.recipes.report import write_report
from groundup.recipes.settings import Run
from groundup.training.budget import Steps, Tally

RUN = Run(model=llama(width=16, layers=1, heads=2, hidden=24, vocab=280, context=24), budget=Steps(6))
SCORE = Score(nats=30.0, tokens=10, text_bytes=40, documents=1)


def test_what_a_killed_process_left_is_gone_when_a_run_is_opened(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    (tmp_path / "config.yaml").touch()
    (tmp_path / f".plan.json.tmp-{dead.pid}").touch()
    (tmp_path / f".tokenizer.tmp-{dead.pid}").mkdir()
    (tmp_path / ".plan.json.tmp-1").touch()  # of a process that runs
    with Place.open(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".plan.json.tmp-1", "config.yaml"]


def test_nothing_of_a_run_is_removed_while_another_process_works_on_it(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    (tmp_path / f".plan.json.tmp-{os.getpid()}").touch()
    with alone(tmp_path), pytest.raises(StorageError, match="another process works on"), Place.open(tmp_path):
        pass
    assert len(list(tmp_path.iterdir())) == 2


def test_a_new_run_that_another_process_began_first_is_left_to_it(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(StorageError, match="another process works on"), Place.new(tmp_path):
        pass
    assert tmp_path.exists()


@pytest.mark.parametrize("name", ["nowhere", "file", "file/below", "circle", "n" * 300, "."])
def test_a_folder_that_is_no_run_is_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(ModelError, match=r"is not a run .*; runs lie in runs/NAME"):
        Place.open(tmp_path / name).__enter__()


@pytest.mark.parametrize(
    "name", ["file", "file/below", "circle", "circle/below", "n" * 300, "/proc/run", ".", os.fsdecode(b"\xff")]
)
def test_a_place_that_cannot_be_taken_is_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(StorageError, match="choose another place"):
        Place.new(tmp_path / name).__enter__()


@pytest.mark.parametrize("value", [None, "fast", True, [], {}, float("nan"), 10**400, 7])
def test_the_page_is_drawn_from_what_the_metrics_hold(tmp_path: Path, value: object) -> None:
    place = Place(tmp_path)
    good = {"step": 1, "tokens": 48, "loss": 5.5, "tokens_per_second": 9.0, "validation": {"loss": 5.6}}
    lines = [good, *(good | {name: value} for name in good), {"validation": {"loss": value}}, value, {}]
    place.metrics.write_text("\n".join(map(json.dumps, lines)) + "\n{")
    place.plan.write_text("{}")
    place.ledger.write_text('{"quantity": "steps", "measured": 6}')
    write_report(RUN, place, tally=Tally(steps=6, tokens=288, seconds=1.0), score=SCORE, samples=[])
    assert place.report.read_text().count("<svg") == 2
