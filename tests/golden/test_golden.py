"""Every preset is what its text says; where a change is meant, tools/golden.py --write moves the lines."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from groundup.families import PRESETS


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


golden = load(Path(__file__).parents[2] / "tools" / "golden.py")


def test_every_preset_has_a_text_and_every_text_a_preset():
    assert {path.stem for path in golden.FOLDER.glob("*.txt")} == set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_what_its_text_says(name):
    assert golden.moved(name) == []


def test_changed_preset_is_seen(monkeypatch):
    changed = PRESETS["gpt2"]().replace(vocab=50304)
    monkeypatch.setitem(PRESETS, "gpt2", lambda: changed)
    lines = golden.moved("gpt2")
    assert "-parameters: 124,439,808" in lines
    assert "+parameters: 124,475,904" in lines
    monkeypatch.delitem(PRESETS, "gpt2")
    assert "-parameters: 124,439,808" in golden.moved("gpt2")


def test_logits_are_compared_as_numbers():
    line = f"{golden.FINGERPRINT} 1.234e-01 -5.678e-02"
    assert golden.same(line, f"{golden.FINGERPRINT} 1.235e-01 -5.677e-02")
    assert not golden.same(line, f"{golden.FINGERPRINT} 1.244e-01 -5.678e-02")
    assert not golden.same(line, f"{golden.FINGERPRINT} 1.234e-01")
