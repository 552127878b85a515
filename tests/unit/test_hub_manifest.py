"""A manifest finds every file that is missing, cut or changed, and in a folder that is to be whole every other one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.errors import CheckpointError
from groundup.hub.manifest import MANIFEST, verify, verify_whole, write_manifest

Check = Callable[[Path], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    (tmp_path / "model.safetensors").write_bytes(bytes(range(200)))
    (tmp_path / "state" / "optimizer.safetensors").write_bytes(b"moments")
    (tmp_path / "empty file").write_bytes(b"")
    write_manifest(tmp_path)
    return tmp_path


# What both comparisons find.
both = pytest.mark.parametrize("check", [verify, verify_whole])


@both
def test_untouched_folder_is_verified(folder: Path, check: Check):
    check(folder)


def test_sha256sum_reads_the_manifest(folder: Path):
    program = shutil.which("sha256sum")
    assert program is not None
    told = subprocess.run([program, "--check", "--strict", MANIFEST], cwd=folder, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert told.stdout.count("OK") == 3


@both
@pytest.mark.parametrize("name", ["model.safetensors", "state/optimizer.safetensors"])
@pytest.mark.parametrize("place", [0, -1])
def test_one_flipped_byte_is_found(folder: Path, name: str, place: int, check: Check):
    data = bytearray((folder / name).read_bytes())
    data[place] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=f"{name} has changed"):
        check(folder)


@both
def test_file_cut_in_half_is_told_by_its_size(folder: Path, check: Check):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="100 bytes where 200 were written"):
        check(folder)


@both
def test_missing_file_is_named(folder: Path, check: Check):
    (folder / "state" / "optimizer.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"optimizer.safetensors is missing"):
        check(folder)


@pytest.mark.parametrize("name", ["notes.txt", "state/notes.txt"])
def test_foreign_file_is_free_or_refused(folder: Path, name: str):
    (folder / name).write_text("mine")
    verify(folder)
    with pytest.raises(CheckpointError, match=r"notes\.txt is not in .*MANIFEST\.sha256; if it was added"):
        verify_whole(folder)


@both
def test_pickle_in_the_place_of_weights_is_named(folder: Path, check: Check):
    (folder / "model.safetensors").write_bytes(b"PK\x03\x04 and the rest of a torch.save")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is a pickle; groundup never reads pickles"):
        check(folder)


def test_only_the_wanted_files_are_read(folder: Path):
    (folder / "state" / "optimizer.safetensors").write_bytes(b"changed")
    verify(folder, only=["model.safetensors"])
    with pytest.raises(CheckpointError, match=r"notes.txt is not in"):
        verify(folder, only=["notes.txt"])


def test_no_flipped_bit_of_the_manifest_goes_unnoticed(folder: Path):
    path = folder / MANIFEST
    data = path.read_bytes()
    for place in range(len(data)):
        for bit in (1, 4, 128):
            path.write_bytes(data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :])
            with pytest.raises(CheckpointError):
                verify(folder)


@both
@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense\n",
        f"{'0' * 64}  model.safetensors\n",
        f"# 200 model.safetensors\n{'0' * 64}  model.safetensors",
        f"# 200 model.safetensors\n{'0' * 64}  model.safetensors\ntail",
        f"# 200 model.safetensors\n{'0' * 64}  other.safetensors\n",
        f"# 1 ../outside\n{'0' * 64}  ../outside\n",
        f"# 1 /etc/passwd\n{'0' * 64}  /etc/passwd\n",
    ],
)
def test_damaged_manifest_is_refused(folder: Path, text: str, check: Check):
    (folder / MANIFEST).write_text(text)
    with pytest.raises(CheckpointError, match=MANIFEST):
        check(folder)


def test_manifest_that_is_no_text_or_missing_is_refused(folder: Path):
    (folder / MANIFEST).write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match="cannot be read"):
        verify(folder)
    (folder / MANIFEST).unlink()
    with pytest.raises(CheckpointError, match=r"has no MANIFEST\.sha256"):
        verify(folder)
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*nowhere"):
        verify(folder / "nowhere")
