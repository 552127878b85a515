from __future__ import annotations

import json
import os
import resource
from dataclasses import replace

import pytest

from groundup.errors import ConfigError
from groundup.planner import benchmark, limits
from groundup.planner.machine import Machine, calibrate
from unit.planner_stand_in import MACHINE


@pytest.fixture(autouse=True)
def _own_cache_and_small_sizes(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(benchmark, "PRODUCTS", ((16, 16, 16), (8, 32, 8)))
    monkeypatch.setattr(benchmark, "ATTENTIONS", ((1, 1, 8, 4),))
    for name in ("NUMBERS", "SPECIAL_NUMBERS"):
        monkeypatch.setattr(benchmark, name, 2**12)
    monkeypatch.setattr(benchmark, "SECONDS_EACH", 0.0)


def test_machine_is_measured_once_and_then_read(tmp_path):
    first = calibrate(device="cpu")
    (file,) = (tmp_path / "cache").glob("machine-*.json")
    assert calibrate(device="cpu") == first
    assert json.loads(file.read_text())["processor"] == first.processor
    assert set(first.matrix_flops_per_second) >= {"float32"}
    assert first.bandwidth_bytes_per_second > 0
    assert first.memory_bytes > 2**20


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"processor": "x"}', '{"samples": 3}'])
def test_damaged_file_is_measured_anew(tmp_path, content):
    calibrate(device="cpu")
    (file,) = (tmp_path / "cache").glob("machine-*.json")
    file.write_text(content)
    again = calibrate(device="cpu")
    assert Machine.from_dict(json.loads(file.read_text())) == again


def test_fresh_measures_again_in_spite_of_the_file(tmp_path):
    first = calibrate(device="cpu")
    (file,) = (tmp_path / "cache").glob("machine-*.json")
    data = json.loads(file.read_text())
    data["samples"][0]["per_second"] = 1.0
    file.write_text(json.dumps(data))
    assert calibrate(device="cpu").samples[0].per_second == 1.0
    assert calibrate(device="cpu", fresh=True).samples[0].per_second != 1.0
    assert first.processor == calibrate(device="cpu").processor


def test_what_a_busy_machine_measured_is_measured_again_in_quiet(tmp_path, monkeypatch):
    for load, kept in ((4.0, 4.0), (3.0, 4.0), (1.0, 1.0), (0.1, 0.1), (0.0, 0.1)):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load * (os.cpu_count() or 1), 0.0, 0.0))
        assert calibrate(device="cpu").load == pytest.approx(kept)


def test_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "file"))
    assert calibrate(device="cpu").matrix_flops_per_second["float32"] > 0


def test_cache_lies_where_the_user_says(tmp_path, monkeypatch):
    monkeypatch.delenv("GROUNDUP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    calibrate(device="cpu")
    assert list((tmp_path / "xdg" / "groundup").glob("machine-*.json"))


def test_machine_survives_its_own_dictionary():
    assert Machine.from_dict(json.loads(json.dumps(MACHINE.to_dict()))) == MACHINE
    assert MACHINE.matrix_flops_per_second == {"float32": 1e11, "bfloat16": 2e11}


def test_products_in_a_type_that_was_not_measured_take_the_best_rate_that_was():
    plain = replace(MACHINE, samples=tuple(sample for sample in MACHINE.samples if sample.dtype == "float32"))
    assert [MACHINE.matrix_rate(dtype) for dtype in ("float32", "bfloat16", "float16")] == [1e11, 2e11, 2e11]
    assert plain.matrix_rate("bfloat16") == 1e11


def test_a_limit_on_the_process_is_its_memory_and_costs_no_new_measurement(tmp_path, monkeypatch):
    first = calibrate(device="cpu")
    groups, own = tmp_path / "cgroup", tmp_path / "own"
    monkeypatch.setattr(limits, "CGROUPS", groups)
    monkeypatch.setattr(limits, "OWN_GROUPS", own)
    (groups / "outer/inner").mkdir(parents=True)
    (groups / "memory/jobs").mkdir(parents=True)
    (groups / "outer/inner/memory.max").write_text("max\n")
    (groups / "outer/memory.max").write_text(f"{2**30}\n")
    own.write_text("4:cpu:/\n0::/outer/inner\nnonsense\n")
    assert calibrate(device="cpu") == replace(first, memory_bytes=2**30)
    (groups / "memory/jobs/memory.limit_in_bytes").write_text(f"{2**29}\n")
    own.write_text("0::/outer/inner\n4:memory:/jobs/of/mine\n")
    assert calibrate(device="cpu").memory_bytes == 2**29


@pytest.mark.parametrize("limit", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_what_ulimit_says_is_memory_less_what_is_only_reserved(limit, monkeypatch):
    free = limits.memory_bytes()
    unlimited = resource.RLIM_INFINITY
    set_to = {getattr(resource, limit): 10**10}
    monkeypatch.setattr(resource, "getrlimit", lambda which: (set_to.get(which, unlimited), unlimited))
    assert min(free, 10**10 - 2**34) < limits.memory_bytes() <= min(free, 10**10)
    set_to[getattr(resource, limit)] = 1
    assert limits.memory_bytes() == 1


def test_device_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="does not exist"):
        calibrate(device="quantum")
