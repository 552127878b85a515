"""What is said of a run that does not fit, and what fits in a memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from groundup.errors import ConfigError
from groundup.optim.optimizers import AdamW, Muon
from groundup.planner import hardware
from groundup.planner.fit import fit, parse_size
from groundup.planner.hardware import USABLE_SHARE
from groundup.planner.plan import plan
from groundup.planner.ways import most_rows
from unit.planner_stand_in import LLAMA, MACHINE

pytestmark = pytest.mark.usefixtures("unchecked_signatures")

MIB = 2**20
CARD = replace(hardware.parse("RTX-4090")[1], memory_bytes=40 * MIB)


def test_what_fits_names_no_way_out():
    made = plan(LLAMA, rows=1, on="RTX-4090")
    assert made.fits and made.ways_out == () and "ways out" not in str(made)


@pytest.mark.slow
def test_every_way_out_fits_and_those_that_change_no_result_come_first():
    made = plan(LLAMA, rows=512, on=CARD)
    assert not made.fits
    usable = USABLE_SHARE * CARD.memory_bytes
    elsewhere = [way for way in made.ways_out if way.change.startswith("on=")]
    assert elsewhere and all(way.peak_bytes <= usable for way in made.ways_out if way not in elsewhere)
    changes = [way.change for way in made.ways_out]
    assert any(change.startswith("rows=") for change in changes)
    assert any("checkpointing=layers" in change for change in changes)
    kept = [way.same_results for way in made.ways_out if way not in elsewhere]
    assert kept == sorted(kept, reverse=True)
    same = [way.slower for way in made.ways_out if way.same_results and way not in elsewhere]
    assert same == sorted(same)
    assert all(cost is not None for cost in (way.cost_usd for way in elsewhere[:1]))


def test_smaller_micro_batches_make_the_same_step():
    made = plan(LLAMA, rows=512, on=CARD, ways="here")
    way = next(way for way in made.ways_out if way.change.startswith("rows="))
    rows, accumulate = (int(setting.partition("=")[2]) for setting in way.change.split())
    assert rows * accumulate == 512 and way.same_results and way.trainable
    again = plan(LLAMA, rows=rows, batch_tokens=512 * LLAMA.context, on=CARD)
    assert again.fits and (again.peak_bytes, again.step_seconds) == (way.peak_bytes, way.step_seconds)
    assert not plan(LLAMA, rows=2 * rows, batch_tokens=512 * LLAMA.context, on=CARD, ways="none").fits


def test_what_groundup_cannot_do_yet_is_marked():
    made = plan(LLAMA, rows=512, on=CARD, ways="here")
    for way in made.ways_out:
        assert way.trainable == not_in(way.change, "checkpointing", "offload", "layout")
    assert not any(way.change.startswith("on=") for way in made.ways_out)


def not_in(change: str, *names: str) -> bool:
    return not any(name in change for name in names)


@pytest.mark.slow
def test_the_table_shows_three_ways_and_the_dictionary_all():
    made = plan(LLAMA, rows=512, on=CARD)
    shown = str(made).partition("ways out:")[2].partition("assumed:")[0]
    assert sum(line.startswith("- ") for line in shown.splitlines()) == 3 < len(made.ways_out)
    assert f"{len(made.ways_out) - 3} more are told by --json" in shown
    told = made.to_dict()["ways_out"]
    assert len(told) == len(made.ways_out)
    keys = {"change", "peak_bytes", "step_seconds", "slower", "cost_usd", "same_results", "trainable"}
    assert all(set(way) == keys for way in told)


def test_where_nothing_helps_that_is_said():
    tiny = replace(MACHINE, memory_bytes=MIB)
    made = plan(LLAMA, rows=1, on=tiny, ways="here")
    assert made.ways_out == () and "none is known; choose a smaller model" in str(made)


@pytest.mark.slow
def test_a_layout_that_does_not_fit_is_told_of_one_that_does():
    made = plan("llama-7b", on="8xH100", layout="dp=8,zero=0", batch_tokens=64 * 2048)
    assert not made.fits
    first = made.ways_out[0]
    assert first.change.startswith("layout=") and first.same_results and first.peak_bytes <= 80 * 2**30


def test_most_rows_are_the_most():
    def again(**more: Any):
        return plan(LLAMA, on=CARD, ways="none", **more)

    made = most_rows(again, most=4096)
    assert made is not None and made.fits and not again(rows=2 * made.micro_batch).fits
    few = most_rows(again, most=4)
    assert few is not None and few.micro_batch == 4
    assert most_rows(lambda **more: plan(LLAMA, on=replace(CARD, memory_bytes=9), ways="none", **more), most=4) is None


@pytest.mark.parametrize(
    ("text", "size"),
    [("24GB", 24e9), ("24GiB", 24 * 2**30), ("24e9", 24e9), ("24 gb", 24e9), ("512MiB", 512 * MIB), ("1.5T", 1.5e12)],
)
def test_sizes_of_memories_are_read(text: str, size: float):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "0", "0GB", "-1GB", "24XB", "nan", "inf", "1e400GB", "2..4GB", "24GBB"])
def test_what_is_no_size_is_refused(text: str):
    with pytest.raises(ConfigError, match="is no size of a memory; give one such as 24GB"):
        parse_size(text)


def test_a_memory_that_holds_no_program_or_no_model_is_refused():
    with pytest.raises(ConfigError, match="less than the program itself takes"):
        fit(LLAMA, "100MB", on=MACHINE)
    with pytest.raises(ConfigError, match="nothing fits in"):
        fit("llama-7b", "1GB", on="RTX-4090")
    with pytest.raises(ConfigError, match="more than any device has"):
        fit(LLAMA, "1e30", on=MACHINE)
    with pytest.raises(ConfigError, match="fit asks what one device holds"):
        fit(LLAMA, "24GB", on="8xA100")


@pytest.mark.slow
def test_what_fits_of_a_model_has_the_fastest_first_and_names_the_largest():
    found = fit(LLAMA, "1GB", on="RTX-4090", optimizer=AdamW())
    speeds = [choice.tokens_per_second or 0 for choice in found.choices]
    assert speeds == sorted(speeds, reverse=True)
    assert all(choice.peak_bytes <= USABLE_SHARE * 1e9 and choice.context == LLAMA.context for choice in found.choices)
    assert found.largest is not None
    assert found.largest.rows == max(choice.rows for choice in found.choices)
    assert {"muon", "offload", "layers"} <= {
        part.rpartition("=")[2] for choice in found.choices for part in choice.settings.split()
    }
    assert "fastest" in str(found) and "largest micro-batch" in str(found)
    only = fit(LLAMA, "1GB", on="RTX-4090", optimizer=Muon())
    assert all("adamw" not in choice.settings for choice in only.choices)


@pytest.mark.slow
def test_the_largest_llama_fits_and_a_larger_one_does_not():
    found = fit(None, "8GB", on="RTX-4090")
    trained, again, away, run = found.choices
    assert trained.params < again.params < away.params < run.params
    assert trained.trainable and not again.trainable and run.what == "run" and found.largest is None
    for choice in found.choices:
        assert 0.9 * USABLE_SHARE * 8e9 < choice.peak_bytes <= USABLE_SHARE * 8e9
