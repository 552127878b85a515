"""A manifest finds every file that is missing, cut short or changed, and leaves files alone that it does not name."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from groundup.errors import CheckpointError
from groundup.hub.manifest import MANIFEST, verify, write_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    (tmp_path / "model.safetensors").write_bytes(bytes(range(200)))
    (tmp_path / "state" / "optimizer.safetensors").write_bytes(b"moments")
    (tmp_path / "empty file").write_bytes(b"")
    write_manifest(tmp_path)
    return tmp_path


def test_untouched_folder_is_verified(folder: Path):
    verify(folder)


def test_sha256sum_reads_the_manifest(folder: Path):
    program = shutil.which("sha256sum")
    assert program is not None
    told = subprocess.run([program, "--check", "--strict", MANIFEST], cwd=folder, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert told.stdout.count("OK") == 3


@pytest.mark.parametrize("name", ["model.safetensors", "state/optimizer.safetensors"])
@pytest.mark.parametrize("place", [0, -1])
def test_one_flipped_byte_is_found(folder: Path, name: str, place: int):
    data = bytearray((folder / name).read_bytes())
    data[place] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=f"{name} has changed"):
        verify(folder)


def test_file_cut_in_half_is_told_by_its_size(folder: Path):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="100 bytes where 200 were written"):
        verify(folder)


def test_missing_file_is_named(folder: Path):
    (folder / "state" / "optimizer.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"optimizer.safetensors is missing"):
        verify(folder)


def test_foreign_file_is_free(folder: Path):
    (folder / "notes.txt").write_text("mine")
    verify(folder)


def test_only_the_wanted_files_are_read(folder: Path):
    (folder / "state" / "optimizer.safetensors").write_bytes(b"changed")
    verify(folder, only=["model.safetensors"])
    with pytest.raises(CheckpointError, match=r"notes.txt is not in"):
        verify(folder, only=["notes.txt"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense\n",
        f"{'0' * 64}  model.safetensors\n",
        f"# 200 bytes\n{'0' * 64}  model.safetensors",
        f"# 200 bytes\n{'0' * 64}  model.safetensors\ntail",
        f"# 1 bytes\n{'0' * 64}  ../outside\n",
        f"# 1 bytes\n{'0' * 64}  /etc/passwd\n",
    ],
)
def test_damaged_manifest_is_refused(folder: Path, text: str):
    (folder / MANIFEST).write_text(text)
    with pytest.raises(CheckpointError, match=MANIFEST):
        verify(folder)


def test_manifest_that_is_no_text_or_missing_is_refused(folder: Path):
    (folder / MANIFEST).write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match="cannot be read"):
        verify(folder)
    (folder / MANIFEST).unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        verify(folder)
