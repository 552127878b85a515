from __future__ import annotations

import json
import math

import pytest

from groundup.errors import ModelError, StorageError
from groundup.planner.audit import entries, record
from groundup.recipes.audit import audit

PLAN = {"params": 5_000_000, "step_flops": 1.2e11, "peak_bytes": 900 * 2**20, "step_seconds": 0.5,
        "tokens_per_second": 8192.0, "train_seconds": 200.0}  # fmt: skip


def run_folder(tmp_path, *, ledger="", metrics="", plan=PLAN):
    if plan is not None:
        (tmp_path / "plan.json").write_text(json.dumps(plan))
    if ledger:
        (tmp_path / "ledger.jsonl").write_text(ledger)
    if metrics:
        (tmp_path / "metrics.jsonl").write_text(metrics)
    return tmp_path


def test_finished_run_has_every_quantity_beside_its_measurement(tmp_path):
    folder = run_folder(tmp_path)
    record(folder / "ledger.jsonl", entries(PLAN, {"parameters": 5_000_000, "peak_bytes": 1000 * 2**20}))
    record(folder / "ledger.jsonl", entries(PLAN, {"step_seconds": 0.4, "tokens_per_second": 10240.0}))
    found = {entry.quantity: entry for entry in audit(folder).entries}
    assert found["parameters"].error == 0
    assert found["peak_bytes"].error == pytest.approx(-0.1)
    assert found["step_seconds"].error == pytest.approx(0.25)
    assert found["train_seconds"].measured is None
    text = str(audit(folder))
    assert "exact" in text
    assert "+25.0%" in text
    assert "900.0 MiB" in text


def test_ledger_lines_have_the_promised_form(tmp_path):
    record(tmp_path / "ledger.jsonl", entries(PLAN, {"step_seconds": 0.4}))
    (line,) = (tmp_path / "ledger.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "quantity": "step_seconds", "unit": "s", "predicted": 0.5, "measured": 0.4, "error": pytest.approx(0.25)
    }  # fmt: skip


def test_running_run_is_judged_by_its_logged_steps(tmp_path):
    lines = [{"step": 10 * i, "seconds": 4.0 * i, "tokens_per_second": 10_000.0 + i} for i in range(1, 6)]
    found = audit(run_folder(tmp_path, metrics="\n".join(map(json.dumps, lines)) + '\n{"step": 60, "sec'))
    measured = {entry.quantity: entry.measured for entry in found.entries}
    assert measured["step_seconds"] == pytest.approx(0.4)
    assert measured["tokens_per_second"] == 10_003.0
    assert measured["peak_bytes"] is None


def test_half_written_and_foreign_lines_are_left_out(tmp_path):
    ledger = '{"quantity": "step_seconds", "measured": 0.4}\n[1]\n\n{"no": 1}\nnonsense\n{"quantity": "peak_by'
    found = {entry.quantity: entry for entry in audit(run_folder(tmp_path, ledger=ledger)).entries}
    assert (found["step_seconds"].predicted, found["step_seconds"].measured) == (0.5, 0.4)
    assert found["peak_bytes"].measured is None


def test_later_lines_replace_earlier_ones_and_unknown_quantities_come_last(tmp_path):
    lines = [
        {"quantity": "bits_per_byte", "unit": "bits", "predicted": None, "measured": 1.7},
        {"quantity": "step_seconds", "unit": "s", "predicted": 0.5, "measured": 0.6},
        {"quantity": "step_seconds", "unit": "s", "predicted": 0.5, "measured": 0.5},
    ]
    found = audit(run_folder(tmp_path, ledger="\n".join(map(json.dumps, lines))))
    assert found.entries[-1].quantity == "bits_per_byte"
    assert next(entry for entry in found.entries if entry.quantity == "step_seconds").error == 0
    assert "1.7 bits" in str(found)
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


@pytest.mark.parametrize("value", [None, "fast", True, [], {}, math.nan, math.inf, -1e308, 10**400])
def test_a_figure_of_another_kind_is_left_out(tmp_path, value):
    line = {"step": value, "seconds": value, "tokens_per_second": value}
    ledger = {"quantity": "steps", "unit": value, "predicted": value, "measured": value}
    folder = run_folder(
        tmp_path, plan={"params": value}, ledger=json.dumps(ledger), metrics=json.dumps(line) + "\n" + "[" * 100_000
    )
    found = audit(folder)
    assert len(str(found).splitlines()) == 8
    assert entries({"params": value}, {"parameters": 3})[0].error in (None, -1e308 / 3 - 1)


@pytest.mark.parametrize("plan", [None, "half"])
def test_folder_that_is_no_run_is_refused(tmp_path, plan):
    folder = run_folder(tmp_path, plan=None)
    if plan:
        (folder / "plan.json").write_text('{"params": 5')
    says = "nothing that can be read in its plan.json; name" if plan else "neither a plan nor a ledger"
    with pytest.raises(ModelError, match=says):
        audit(folder)


def test_damaged_plan_still_leaves_the_ledger(tmp_path):
    folder = run_folder(tmp_path, plan=None, ledger='{"quantity": "parameters", "predicted": 3, "measured": 3}')
    (folder / "plan.json").write_text("[")
    assert audit(folder).entries[0].error == 0


def test_ledger_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        record(tmp_path / "file" / "ledger.jsonl", entries(PLAN, {"step_seconds": 0.4}))
