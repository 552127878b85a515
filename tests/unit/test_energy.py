"""Counters of energy are read as Linux shows them, and a run has a line of energy only where they can be read."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path

import pytest

from groundup.planner import energy
from groundup.planner.energy import Meter, metered, source_of


def socket(root: Path, number: int, *, joules: float, most: float | None = 262_143.0, name: str = "package") -> Path:
    folder = root / f"intel-rapl:{number}"
    (folder / f"intel-rapl:{number}:0").mkdir(parents=True)
    (folder / f"intel-rapl:{number}:0" / "energy_uj").write_text("999999999\n")  # a part, which is in the whole
    (folder / "name").write_text(f"{name}-{number}\n")
    write(folder, joules)
    if most is not None:
        (folder / "max_energy_range_uj").write_text(f"{round(most * 1e6)}\n")
    return folder


def write(folder: Path, joules: float) -> None:
    (folder / "energy_uj").write_text(f"{round(joules * 1e6)}\n")


def test_joules_of_all_sockets_are_added(tmp_path: Path):
    one, two = socket(tmp_path, 0, joules=100), socket(tmp_path, 1, joules=5000)
    meter = Meter(source_of("cpu", rapl=tmp_path))
    write(one, 130)
    write(two, 5001.5)
    assert meter.read() == pytest.approx(31.5)
    write(one, 131)
    assert meter.read() == pytest.approx(32.5)


def test_a_counter_that_begins_anew_loses_nothing(tmp_path: Path):
    folder = socket(tmp_path, 0, joules=262_000)
    meter = Meter(source_of("cpu", rapl=tmp_path))
    write(folder, 57)
    assert meter.read() == pytest.approx(200)
    write(folder, 100)
    assert meter.read() == pytest.approx(243)


def test_a_counter_that_falls_without_a_known_largest_value_gives_no_figure(tmp_path: Path):
    folder = socket(tmp_path, 0, joules=100, most=None)
    meter = Meter(source_of("cpu", rapl=tmp_path))
    write(folder, 50)
    assert meter.read() is None


def test_the_whole_platform_is_not_counted_beside_its_sockets(tmp_path: Path):
    one, platform = socket(tmp_path, 0, joules=0), socket(tmp_path, 1, joules=0, name="psys")
    meter = Meter(source_of("cpu", rapl=tmp_path))
    write(one, 10)
    write(platform, 30)
    assert meter.read() == pytest.approx(10)


def test_a_counter_that_goes_away_gives_no_figure(tmp_path: Path):
    folder = socket(tmp_path, 0, joules=1)
    meter = Meter(source_of("cpu", rapl=tmp_path))
    (folder / "energy_uj").unlink()
    assert meter.read() is None
    write(folder, 5)
    assert meter.read() is None


def test_without_counters_the_reason_is_told(tmp_path: Path):
    source = source_of("cpu", rapl=tmp_path / "nothing")
    assert "virtual machine" in source.why_not
    assert Meter(source).read() is None
    assert "root" in source_of("mps").why_not


def test_locked_counters_come_with_the_way_to_open_them(request: pytest.FixtureRequest):
    with tempfile.TemporaryDirectory(dir="/tmp") as place:  # whose parents another user may enter
        root = Path(place)
        root.chmod(0o755)
        (socket(root, 0, joules=1) / "energy_uj").chmod(0)
        request.getfixturevalue("another_user")
        told = source_of("cpu", rapl=root).why_not
        if os.getuid() == 0:
            os.seteuid(0)
    assert "sudo chmod a+r" in told


@pytest.mark.parametrize("content", ["", "many", "12.5"])
def test_a_damaged_counter_is_named(tmp_path: Path, content: str):
    folder = socket(tmp_path, 0, joules=1)
    (folder / "energy_uj").write_text(content)
    assert "cannot be read as a number" in source_of("cpu", rapl=tmp_path).why_not


def test_a_long_block_is_read_in_between(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(energy, "EVERY_SECONDS", 0.001)
    readings, ended = iter([0.0, 90.0, 10.0, 80.0, 5.0]), threading.Event()  # of a counter that begins anew at 100

    def joules() -> float:
        value = next(readings, None)
        if value is None:
            ended.set()
        return 5.0 if value is None else value

    with metered(energy.Source(name="x", counters=(energy.Counter(joules=joules, most=100.0),))) as meter:
        assert ended.wait(60)
        assert meter.read() == pytest.approx(205.0)
