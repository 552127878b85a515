"""What stood in a folder's place stays until its successor is whole, and nobody else's files are touched."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from groundup.errors import StorageError
from groundup.files import REPLACED, alone, put_back, remove_abandoned, replacing


def write(path: Path, text: str) -> None:
    with replacing(path) as new:
        (new / "below").mkdir()
        (new / "below" / "file").write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_folder_is_replaced_as_a_whole(tmp_path: Path):
    path = tmp_path / "new" / "model"
    write(path, "one")
    (path / "old").touch()
    write(path, "two")
    assert (path / "below" / "file").read_text() == "two"
    assert names(path) == ["below"] and names(path.parent) == ["model"]


@pytest.mark.parametrize("fault", [ZeroDivisionError, KeyboardInterrupt])
def test_folder_stays_when_its_successor_fails(fault: type[BaseException], tmp_path: Path):
    write(tmp_path / "model", "one")
    with pytest.raises(fault), replacing(tmp_path / "model") as new:
        (new / "file").write_text("half")
        raise fault
    assert (tmp_path / "model" / "below" / "file").read_text() == "one"
    assert names(tmp_path) == ["model"]


def test_crash_between_the_renames_is_mended_by_the_next_write(tmp_path: Path):
    write(tmp_path / "model", "one")
    (tmp_path / "model").rename(tmp_path / f".model{REPLACED}")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "model"):
        assert (tmp_path / "model" / "below" / "file").read_text() == "one"
        raise ZeroDivisionError
    assert names(tmp_path) == ["model"]


def test_only_folders_of_its_own_name_are_tidied(tmp_path: Path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    foreign = [f".other.tmp-{dead.pid}", f".modem.tmp-{dead.pid}", f".other{REPLACED}"]
    for name in (*foreign, f".mode[lm].tmp-{dead.pid}"):
        (tmp_path / name).mkdir()
    write(tmp_path / "mode[lm]", "one")
    assert names(tmp_path) == sorted([*foreign, "mode[lm]"])
    put_back(tmp_path, names="*")
    remove_abandoned(tmp_path, names="*")
    assert names(tmp_path) == ["mode[lm]", "other"]


def test_place_that_cannot_be_written_is_one_sentence(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="a file stands in the way"):
        write(tmp_path / "file" / "model", "one")


def test_folder_is_worked_on_by_one_process_at_a_time(tmp_path: Path):
    with alone(tmp_path), pytest.raises(StorageError, match="another process works on"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass
