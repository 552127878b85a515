"""A corpus on disk: tokens in memory-mapped shards, where each document begins, and what it was made of.

    corpus/
      corpus.json            source, counts, sizes and hashes of all files below
      tokenizer/             the tokenizer that made the ids
      train/, valid/
        tokens-00000.bin     ids, uint16 or uint32, each document followed by the end token
        starts.bin           int64: where each document begins, and last, how many tokens there are
        text_bytes.bin       int64: how long the text of each document is in UTF-8
        names.jsonl          the name of each document, one JSON string a line

All numbers are little-endian. A corpus is written once and never changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.data.files import reading
from groundup.data.sides import TRAIN, VALID
from groundup.errors import DataError, nearest
from groundup.files import as_path
from groundup.text.tokenizer import Tokenizer

Json = Any  # what json.loads returns

FORMAT = 1
MANIFEST, TOKENIZER = "corpus.json", "tokenizer"
STARTS, TEXT_BYTES, NAMES = "starts.bin", "text_bytes.bin", "names.jsonl"
_AGAIN = "remove the folder and build the corpus again (a run does so when it resumes)"
DTYPES = ("uint16", "uint32")

# What a manifest must say, its splits and their files.
_CORPUS = {"source": str, "vocab": int, "end": int, "tokenizer": str, "dtype": str, "duplicates": int, "splits": dict}
_SPLITS = {TRAIN: dict, VALID: dict}
_SPLIT = {"documents": int, "text_bytes": int, "tokens": int, "max_id": int, "files": dict}
_FILE = {"bytes": int, "sha256": str}
_KINDS = {str: "a text", int: "a whole number", dict: "an object"}


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenDocument:
    """One document of a corpus.

    Attributes:
        name: where it is from.
        text_bytes: the length of its text in UTF-8.
        ids: its token ids; the last one is the end token, which stands for no byte of the text.
    """

    name: str
    text_bytes: int
    ids: NDArray[np.integer]


class Split:
    """One side of a corpus: ``train`` or ``valid``."""

    def __init__(self, folder: Path, *, manifest: Mapping[str, Json], dtype: str) -> None:
        self.name = folder.name
        self._folder = folder
        self._dtype = np.dtype(dtype)
        self.documents_count: int = manifest["documents"]
        self.text_bytes: int = manifest["text_bytes"]
        self.tokens: int = manifest["tokens"]
        self.max_id: int = manifest["max_id"]
        self._shards = sorted(name for name in manifest["files"] if name.startswith("tokens-"))
        sizes = [manifest["files"][name]["bytes"] // self._dtype.itemsize for name in self._shards]
        self._shard_starts = [0, *accumulate(sizes)]

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where each document begins, and last, how many tokens there are."""
        return self._numbers(STARTS)

    @cached_property
    def _maps(self) -> list[NDArray[np.integer]]:
        return [self._map(name, self._dtype) for name in self._shards]

    def ids(self, start: int, stop: int) -> NDArray[np.integer]:
        """Returns the tokens from ``start`` to before ``stop``, across shards."""
        stop = min(stop, self.tokens)
        shard = bisect_right(self._shard_starts, start) - 1
        parts = []
        while start < stop:
            base, end = self._shard_starts[shard], self._shard_starts[shard + 1]
            parts.append(self._maps[shard][start - base : min(stop, end) - base])
            start, shard = end, shard + 1
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype=self._dtype), *parts])

    def documents(self) -> Iterator[TokenDocument]:
        """Yields the documents in the order of their tokens."""
        lengths = self._numbers(TEXT_BYTES)
        if not self.documents_count:
            return
        path = self._folder / NAMES
        with reading(path), path.open(encoding="utf-8") as names:
            for index, line in enumerate(names):
                ids = self.ids(int(self.starts[index]), int(self.starts[index + 1]))
                yield TokenDocument(name=json.loads(line), text_bytes=int(lengths[index]), ids=ids)

    def _numbers(self, name: str) -> NDArray[np.int64]:
        return self._map(name, np.dtype("<i8"))

    def _map(self, name: str, dtype: np.dtype) -> NDArray[Any]:
        path = self._folder / name
        with reading(path):
            return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.empty(0, dtype=dtype)


class Corpus:
    """A corpus on disk; `open` reads one, `shards.build` makes one."""

    def __init__(self, folder: Path, *, manifest: Mapping[str, Json]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.source: str = manifest["source"]
        self.vocab: int = manifest["vocab"]
        self.duplicates: int = manifest["duplicates"]
        self.pairs: bool = bool(manifest.get("pairs", False))  # whether documents come in twos, source and target

    @staticmethod
    def is_there(folder: str | Path) -> bool:
        """Returns whether a folder holds a corpus, as `groundup.data.shards.build` makes them."""
        return os.path.isfile(as_path(folder) / MANIFEST)

    @classmethod
    def open(cls, folder: str | Path, *, tokenizer: Tokenizer | None = None) -> Corpus:
        """Returns the corpus in a folder, after a look at the sizes of all its files.

        Args:
            folder: what `shards.build` wrote.
            tokenizer: the tokenizer that the corpus must have been made with; None takes any.

        Raises:
            DataError: no corpus there, a file is missing or cut, or it was made with another tokenizer.
        """
        folder = as_path(folder)
        corpus = cls(folder, manifest=_manifest(folder))
        for path, told in corpus._files():
            if not os.path.isfile(path):
                raise DataError(f"{path} is missing; {_AGAIN}")
            size = path.stat().st_size
            if size != told["bytes"]:
                raise DataError(f"{path} has {size} bytes instead of {told['bytes']}; {_AGAIN}")
        if tokenizer and tokenizer.fingerprint != corpus.manifest["tokenizer"]:
            raise DataError(
                f"{folder} was made with another tokenizer (vocabulary of {corpus.vocab}; "
                f"this one has {tokenizer.vocab}); use {folder / TOKENIZER}, or build the corpus again"
            )
        return corpus

    def split(self, name: str) -> Split:
        """Returns one side of the corpus.

        Raises:
            DataError: there is no split of this name.
        """
        splits = self.manifest["splits"]
        if name not in splits:
            hint = nearest(name, splits) or f"choose from {', '.join(splits)}"
            raise DataError(f"{self.folder} has no split {name!r}; {hint}")
        return Split(self.folder / name, manifest=splits[name], dtype=self.manifest["dtype"])

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the ids."""
        return Tokenizer.load(self.folder / TOKENIZER)

    @property
    def max_id(self) -> int:
        """The largest token id in it; a model needs a vocabulary larger than this."""
        return max(split["max_id"] for split in self.manifest["splits"].values())

    def verify(self, *splits: str) -> None:
        """Reads every file, or those of some splits, and compares its SHA-256 with the one that was written down.

        Raises:
            DataError: a file was changed.
        """
        for path, told in self._files(*splits):
            with reading(path), path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != told["sha256"]:
                    raise DataError(f"{path} was changed since the corpus was built; {_AGAIN}")

    def _files(self, *splits: str) -> Iterator[tuple[Path, Mapping[str, Json]]]:
        for name in splits or self.manifest["splits"]:
            for file, told in self.manifest["splits"][name]["files"].items():
                yield self.folder / name / file, told


def _manifest(folder: Path) -> Mapping[str, Json]:
    path = folder / MANIFEST
    if not os.path.isfile(path):
        what = "is no corpus" if os.path.isdir(folder) else "does not exist"
        raise DataError(f"{folder} {what} (no {MANIFEST}); make one with groundup data build")
    with reading(path):
        text = path.read_bytes()
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError) as fault:
        raise DataError(f"{path} is not JSON ({fault}); {_AGAIN}") from fault
    if not (isinstance(manifest, dict) and manifest.get("format") == FORMAT):
        raise DataError(f"{path} has not the form {FORMAT} that this version reads; {_AGAIN}")
    _check(manifest, _CORPUS, where=str(path))
    _check(manifest["splits"], _SPLITS, where=str(path))
    if manifest["dtype"] not in DTYPES:
        raise DataError(f"{path}: dtype={manifest['dtype']!r} is not of {', '.join(DTYPES)}; {_AGAIN}")
    for name, split in manifest["splits"].items():
        _check_split(split, dtype=manifest["dtype"], where=f"{path}: {name}")
    return manifest


def _check_split(split: Json, *, dtype: str, where: str) -> None:
    _check(split, _SPLIT, where=where)
    for file, told in split["files"].items():
        _check(told, _FILE, where=f"{where}/{file}")
    sizes = {file: told["bytes"] for file, told in split["files"].items()}
    tokens_bytes = sum(size for file, size in sizes.items() if file.startswith("tokens-"))
    counted = (8 * (split["documents"] + 1), 8 * split["documents"], split["tokens"] * np.dtype(dtype).itemsize)
    if (sizes.get(STARTS), sizes.get(TEXT_BYTES), tokens_bytes) != counted or NAMES not in sizes:
        raise DataError(f"{where} has files of other sizes than its counts; {_AGAIN}")


def _check(told: Json, fields: Mapping[str, type], *, where: str) -> None:
    for name, kind in fields.items():
        value = told.get(name) if isinstance(told, dict) else None
        if not isinstance(value, kind) or isinstance(value, bool):
            raise DataError(f"{where} has no {name} that is {_KINDS[kind]}; {_AGAIN}")
