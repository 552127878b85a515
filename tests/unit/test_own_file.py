"""An architecture in a user's own file is a MODEL like any other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import groundup as gu
from groundup.errors import SpecError
from groundup.hub.own_file import import_file
from groundup.hub.resolve import spec

MODEL = """
import groundup as gu

class {kind}(gu.MixerSpec):
    def build(self, width):
        return Nothing()

class Nothing(gu.Mixer):
    def forward(self, x, ctx, state=None):
        return x * 0

layer = gu.Layer(mix=gu.Residual({kind}()), ffn=gu.Residual(gu.GatedMLP(hidden=8)))
spec = gu.Decoder(width=8, vocab=16, context=8, layers=gu.pattern([layer], of=2), head=gu.Tied())
wide = spec.replace(context=32)
number = 5

def made():
    return wide

def broken():
    return 1 / 0
"""


@pytest.fixture(autouse=True)
def _forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def write(name: str, *, kind: str) -> Path:
    path = Path(name)
    path.write_text(MODEL.format(kind=kind))
    return path


def test_a_file_and_a_name_are_a_model():
    write("own_one.py", kind="OwnOne")
    for given in ("own_one.py", "./own_one.py", "own_one.py:spec", Path("own_one.py")):
        assert spec(given).context == 8
    assert spec("./own_one.py:wide") == spec("own_one.py:made")
    assert spec("own_one.py:wide").context == 32
    model = spec("own_one.py").build()
    assert model(torch.zeros(1, 3, dtype=torch.int64)).shape == (1, 3, 16)


def test_a_kind_is_known_once_its_file_is_imported():
    path = write("own_two.py", kind="OwnTwo")
    data = {"kind": "OwnTwo"}
    with pytest.raises(gu.GroundupError, match=r"unknown kind 'OwnTwo'.*once its file is imported"):
        gu.MixerSpec.from_dict(data)
    assert type(gu.MixerSpec.from_dict(import_file(path).spec.layers[0].mix.mixer.to_dict())).__name__ == "OwnTwo"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("own_bad.py:specs", r"own_bad.py defines no 'specs'; did you mean 'spec'\?"),
        ("own_bad.py:other", "defines no 'other'; its models: spec, wide"),
        ("own_bad.py:number", "own_bad.py:number is int; expected a model"),
        ("own_bad.py:broken", "own_bad.py, line 21: ZeroDivisionError: division by zero"),
        ("own_gone.py:spec", "own_gone.py is not there"),
        ("torch.py:spec", "torch.py has the name of the module torch; rename the file"),
        ("own_syntax.py", "own_syntax.py: SyntaxError"),
        ("own_import.py", "own_import.py, line 2: ModuleNotFoundError: No module named 'no_such_package'"),
        ("own_empty.py", "own_empty.py defines no 'spec'; its models: none"),
    ],
)
def test_a_file_that_defines_no_model_is_told_with_its_line(given: str, message: str):
    write("own_bad.py", kind="OwnBad")
    Path("torch.py").write_text("")
    Path("own_syntax.py").write_text("def (")
    Path("own_import.py").write_text("\nimport no_such_package")
    Path("own_empty.py").write_text("")
    with pytest.raises(gu.GroundupError, match=message):
        spec(given)


def test_a_file_imports_what_lies_beside_it(tmp_path: Path):
    folder = tmp_path / "designs"
    folder.mkdir()
    write("designs/own_base.py", kind="OwnBase")
    (folder / "own_twist.py").write_text("from own_base import wide as spec\n")
    assert spec("designs/own_twist.py").context == 32


def test_a_mixer_whose_state_is_none_is_refused_by_name(tmp_path: Path):
    path = write("own_none.py", kind="OwnNone")
    stateless = "x * 0\n\n    def new_state(self, *sizes, **kinds):\n        pass"
    path.write_text(path.read_text().replace("x * 0", stateless))
    with pytest.raises(SpecError, match=r"Nothing\.new_state returns NoneType; expected a groundup\.State"):
        gu.plan("own_none.py")
