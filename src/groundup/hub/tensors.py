"""The tensors of a folder's safetensors files: known by their headers, read one at a time, written whole or not at all.

Left out: pickles. A pickle is a program that runs when it is read, so no file of that kind is ever opened.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from groundup.errors import WeightsError, writing

ONE_FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
KINDS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

_PICKLED = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_AGAIN = "copy or download it again"


@dataclass(frozen=True)
class Stored:
    """A tensor in a file.

    Attributes:
        file: the safetensors file.
        name: its name there.
        shape: its shape.
        kind: its dtype as the file calls it.
    """

    file: Path
    name: str
    shape: tuple[int, ...]
    kind: str

    @property
    def dtype(self) -> torch.dtype:
        """Its dtype, once `check` has said nothing against it."""
        return KINDS[self.kind]

    def check(self) -> None:
        """Refuses numbers that no weights are stored in here.

        Raises:
            WeightsError: they are of another kind.
        """
        if self.kind not in KINDS:
            raise WeightsError(
                f"{self.file} stores {self.name} as {self.kind}; this version reads {', '.join(KINDS)}, so use the "
                "weights from before they were quantized, or those that transformers saves once it has unpacked them"
            )

    def read(self) -> Tensor:
        """Returns the tensor, mapped from the file: copy what shall outlive it."""
        # Opened for each tensor, because an open file keeps every page that was read of it in memory.
        with safe_open(self.file, framework="pt") as file:
            return file.get_tensor(self.name)


class Lazy(Mapping[str, Tensor]):
    """Stored tensors by name, each read when it is asked for."""

    def __init__(self, stored: Mapping[str, Stored]) -> None:
        self._stored = stored

    def __getitem__(self, name: str) -> Tensor:
        return self._stored[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


def weight_files(folder: Path) -> list[Path]:
    """Returns the safetensors files that hold a folder's weights.

    Raises:
        WeightsError: there are none, some are missing, or there are only pickles.
    """
    if (folder / ONE_FILE).exists():
        return [folder / ONE_FILE]
    if (folder / INDEX).exists():
        return sorted({folder / name for name in _index(folder).values()})
    pickles = sorted(path.name for path in folder.glob("*") if path.suffix in PICKLES)
    if pickles:
        raise pickle_refused(folder / pickles[0])
    raise WeightsError(f"{folder} holds no {ONE_FILE}; give a folder with weights, or train the model first")


def stored_in(folder: Path) -> dict[str, Stored]:
    """Returns all tensors in a folder's weight files by name, reading only the headers.

    Raises:
        WeightsError: the files are missing, damaged or of another kind, or do not hold what their index says.
    """
    files = weight_files(folder)
    found = {tensor.name: tensor for file in files for tensor in _stored_in_file(file)}
    if files != [folder / ONE_FILE]:
        for name, file in _index(folder).items():
            if name not in found or found[name].file != folder / file:
                raise WeightsError(f"{folder / file} lacks {name}, which {INDEX} places there; {_AGAIN}")
    return found


def pickle_refused(path: Path) -> WeightsError:
    """Returns the error for a file that is, or may be, a pickle."""
    return WeightsError(
        f"{path} is a pickle, which could run any program when it is read; use the model's safetensors files, or "
        "where you trust it convert it with transformers: from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)"
    )


def is_pickle(path: Path) -> bool:
    """Returns whether a file begins as torch.save and pickle begin theirs, and not as a safetensors file does."""
    with path.open("rb") as file:
        start = file.read(9)
    return start.startswith(_PICKLED) and start[8:] != b"{"


def load(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a safetensors file, of any dtype, mapped from the file: copy what shall outlive it.

    Raises:
        WeightsError: the file is missing, damaged or of another kind.
    """
    _check_kind(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as fault:
        raise _damaged(path, fault) from fault


def save(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes a safetensors file.

    Raises:
        StorageError: the disk is full or the place cannot be written.
    """
    with writing(path):
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
        except SafetensorError as fault:  # tells the system's errors in Rust's words, which differ between releases
            number = re.search(r"(?:os error|code:) (\d+)", str(fault))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from fault
        path.chmod(path.parent.stat().st_mode & 0o644)  # who may enter the folder may read the file


def _index(folder: Path) -> dict[str, str]:
    """The file of each tensor, by the tensor's name."""
    path = folder / INDEX
    try:
        data: Any = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as fault:
        raise WeightsError(f"{path} is not JSON: {fault}; {_AGAIN}") from fault
    files = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(files, dict) or not files:
        raise WeightsError(f"{path} has no weight_map; {_AGAIN}")
    for name, file in files.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise WeightsError(f"{path} places {name} in {file!r}; expected the name of a file beside it")
    return files


def _stored_in_file(path: Path) -> list[Stored]:
    _check_kind(path)
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            heads = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
    except (SafetensorError, OSError) as fault:
        raise _damaged(path, fault) from fault
    return [Stored(file=path, name=name, shape=shape, kind=kind) for name, (shape, kind) in heads.items()]


def _damaged(path: Path, fault: Exception) -> WeightsError:
    return WeightsError(f"{path} is damaged or cut short ({fault}); {_AGAIN}")


def _check_kind(path: Path) -> None:
    """Tells the usual ways in which a .safetensors file is not one apart, so that the cure can be named."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as fault:
        if fault.errno == errno.EISDIR:
            raise WeightsError(f"{path} is a folder; expected a safetensors file, so give the folder inside") from fault
        raise WeightsError(f"{path} cannot be read: {fault.strerror}; {_AGAIN}") from fault
    if not start:
        raise WeightsError(f"{path} is empty; {_AGAIN}")
    if start.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path} is a Git LFS pointer, not the weights; run `git lfs pull` in its folder")
    if is_pickle(path):
        raise pickle_refused(path)
