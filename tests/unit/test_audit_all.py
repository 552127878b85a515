"""Every run leaves a line, all lines together tell how wrong plans are, and correct the next ones."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from groundup.cli import groundup
from groundup.planner import history, refit
from groundup.planner.audit import Entry
from groundup.planner.history import Record
from groundup.planner.machine import calibrate
from groundup.planner.plan import plan
from groundup.planner.refit import corrected, correction
from groundup.recipes.audit_all import Judged, audit_all, history_page
from unit.planner_stand_in import LLAMA, MACHINE


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))


def add(run: Path, *, step: tuple[float, float] = (0.5, 0.4), peak: tuple[float, float] = (900.0, 1000.0),
        machine=MACHINE, spread: float | None = 1.0, others: float | None = None) -> None:  # fmt: skip
    found = [
        Entry(quantity="step_seconds", unit="s", predicted=step[0], measured=step[1]),
        Entry(quantity="peak_bytes", unit="bytes", predicted=peak[0], measured=peak[1]),
        Entry(quantity="slack_bytes", unit="bytes", predicted=200.0, measured=None),
    ]
    history.remember(run, found, machine=machine, params=5e6, correction={}, spread=spread, others=others)


def write_many(name: str) -> None:
    for number in range(50):
        add(Path(f"/nowhere/{name}-{number}-{'x' * 300}"))


def record(predicted: float, measured: float, **more) -> Record:
    return Record(run="a", time="2026", machine="m", predicted={"step_seconds": predicted},
                  measured={"step_seconds": measured}, spread=1.0, **more)  # fmt: skip


def peaked(*, predicted: float, slack: float, measured: float) -> Record:
    planned = {"peak_bytes": predicted, "slack_bytes": slack}
    return Record(run="a", time="2026", machine="m", predicted=planned, measured={"peak_bytes": measured})


def test_a_run_that_ends_again_replaces_its_line_and_damaged_lines_are_left_out(tmp_path: Path):
    add(tmp_path / "a", step=(0.5, 0.1))
    add(tmp_path / "b")
    add(tmp_path / "a", step=(0.5, 0.5))
    with history.file().open("a") as file:
        file.write('nonsense\n[1]\n{"run": 3}\n{"run": "c", "time": "x", "mach')
    add(tmp_path / "d")
    assert [Path(run.run).name for run in history.read()] == ["b", "a", "d"]
    assert history.read()[1].error("step_seconds") == 0
    assert history.read()[0].error("energy_kwh") is None


@pytest.mark.slow
def test_runs_that_end_together_do_not_mix_their_lines():
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_many, args=(name,)) for name in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(history.read()) == 200


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "file" / "cache"))
    add(tmp_path / "a")
    assert history.read() == []
    assert correction(MACHINE) == refit.NONE


def test_the_correction_is_the_median_over_quiet_runs_of_this_machine(tmp_path: Path):
    for number, measured in enumerate((0.44, 0.45, 0.46)):
        add(tmp_path / f"run-{number}", step=(0.5, measured))
    add(tmp_path / "uneven", step=(0.5, 0.9), spread=1.6)
    add(tmp_path / "beside-others", step=(0.5, 0.9), others=0.4)
    add(tmp_path / "short", step=(0.001, 0.009))
    add(tmp_path / "elsewhere", step=(0.5, 0.9), machine=replace(MACHINE, torch="3"))
    assert correction(MACHINE) == refit.NONE
    found = refit.refit(MACHINE)
    assert (found.seconds, found.seconds_runs) == (pytest.approx(0.9), 3)
    assert found.slack == pytest.approx((1000 - 700) / 200)
    assert correction(MACHINE) == found
    assert correction(replace(MACHINE, torch="3")) == refit.NONE


def test_a_factor_that_does_not_hold_for_other_runs_corrects_nothing():
    """Half of the runs were slower than planned and half faster: what suits the others is wrong for the next."""
    assert corrected([record(0.5, measured) for measured in (0.44, 0.56, 0.45, 0.57)]) == refit.NONE


def test_runs_whose_peak_has_no_waste_in_it_say_nothing_of_it():
    """Twenty runs of a process whose program was larger than planned, and four that show what the allocator wastes."""
    small = [peaked(predicted=400.0, slack=1.0, measured=390.0 + number % 3) for number in range(16)]
    large = [peaked(predicted=1000.0, slack=200.0, measured=1060.0)] * 4
    assert corrected(small + large).slack == pytest.approx(1.3)
    assert corrected(small).slack_runs == 0


def test_a_plan_that_was_corrected_is_held_against_what_it_said_before():
    before = corrected([record(0.5, 0.4)] * 3)
    after = corrected([record(0.4, 0.4, correction={"seconds": 0.8})] * 3)
    assert before.seconds == pytest.approx(0.8)
    assert after.seconds == pytest.approx(0.8)


def test_few_runs_and_nonsense_correct_nothing_much():
    assert corrected([record(0.5, 0.4)] * 2) == refit.NONE
    assert corrected([record(0.5, 50.0)] * 3) == refit.NONE
    assert corrected([record(50.0, 0.5)] * 3) == refit.NONE
    assert corrected([replace(record(0.5, 0.4), spread=None)] * 3) == refit.NONE


@pytest.mark.parametrize("content", ["", "{", "[]", '{"seconds": 0}', '{"seconds": 9, "slack": 1}',
                                     '{"seconds": null, "slack": 1, "seconds_runs": 3, "slack_runs": 3}',
                                     '{"seconds": 9, "slack": 1, "seconds_runs": 3, "slack_runs": 3}'])  # fmt: skip
def test_a_damaged_correction_corrects_nothing(tmp_path: Path, content: str):
    for number in range(3):
        add(tmp_path / f"run-{number}")
    refit.refit(MACHINE)
    (file,) = (tmp_path / "cache").glob("refit-*.json")
    file.write_text(content)
    assert correction(MACHINE) == refit.NONE


def test_the_next_plan_is_corrected_and_says_so(tmp_path: Path):
    before = plan(LLAMA, on=MACHINE, rows=2, tokens=1e5)
    for number in range(4):
        add(tmp_path / f"run-{number}", step=(0.5, 0.45), peak=(900.0, 960.0))
    refit.refit(MACHINE)
    after = plan(LLAMA, on=MACHINE, rows=2, tokens=1e5)
    assert after.step_seconds == pytest.approx(0.9 * before.step_seconds)
    assert after.slack_bytes == pytest.approx(1.3 * before.slack_bytes, abs=1)
    assert after.peak_bytes - after.slack_bytes == before.peak_bytes - before.slack_bytes
    assert after.correction == {"seconds": pytest.approx(0.9), "slack": pytest.approx(1.3)}
    assert "Step time corrected by 0.90, from 4 runs on this machine." in after.assumptions
    assert before.correction == {"seconds": 1.0, "slack": 1.0}
    elsewhere = plan(LLAMA, on="A100", rows=2, tokens=1e5)
    assert elsewhere.correction == {"seconds": 1.0, "slack": 1.0}


def test_errors_are_told_by_their_middle_and_their_ninetieth():
    judged = Judged(quantity="step_seconds", errors=tuple(i / 100 for i in range(-10, 0)))
    assert judged.middle == pytest.approx(0.055)
    assert judged.ninetieth == pytest.approx(0.09)
    assert judged.bars[0] == "█" and len(judged.bars) == 10
    empty = Judged(quantity="energy_kwh", errors=())
    assert (empty.middle, empty.ninetieth, empty.bars) == (None, None, "")


@pytest.mark.slow
def test_the_verb_tells_all_runs_and_those_that_are_gone(tmp_path: Path):
    (tmp_path / "here").mkdir()
    add(tmp_path / "here", machine=calibrate(device="cpu"))
    add(tmp_path / "away")
    page = tmp_path / "all.html"
    told = CliRunner().invoke(groundup, ["audit", "--all", "--html", str(page)])
    assert told.exit_code == 0, told.output
    assert "away (gone)" in told.output and "here " in told.output
    assert "+25.0%" in told.output and "-10.0%" in told.output and "median" in told.output
    assert "<svg" in page.read_text() and "<script" not in page.read_text()
    data = json.loads(CliRunner().invoke(groundup, ["audit", "--all", "--json"]).output)
    assert data["errors"]["peak_bytes"]["median"] == pytest.approx(0.1)
    assert [run["there"] for run in data["runs"]] == [True, False]
    assert str(audit_all()) in history_page(audit_all()).replace("&#x27;", "'")


@pytest.mark.slow
def test_without_runs_the_verb_says_where_they_will_be():
    told = CliRunner().invoke(groundup, ["audit", "--all"])
    assert told.exit_code == 0
    assert "No run has ended" in told.output and "runs.jsonl" in told.output


@pytest.mark.parametrize("arguments", [[], ["a", "--all"], ["a", "--html", "b.html"]])
def test_a_run_or_all_of_them(arguments: list[str]):
    told = CliRunner().invoke(groundup, ["audit", *arguments])
    assert told.exit_code == 2
