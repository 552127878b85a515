"""Building a corpus: documents cleaned, split, tokenized on all cores, written beside and renamed.

Memory is bounded: a few batches of documents are under way at once, and all else goes to files as it comes. What
grows is 100 bytes a document, for finding duplicates.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.data import corpus as layout
from groundup.data.beside import written_beside
from groundup.data.corpus import Corpus
from groundup.data.sides import TRAIN, VALID, Sided, Sides
from groundup.data.sources import Document, documents, total_bytes
from groundup.errors import DataError
from groundup.text.tokenizer import Tokenizer

Json = Any  # what json.loads returns
Ids = NDArray[np.unsignedinteger]
Progress = Callable[[int, int | None], None]

BATCH_BYTES = 1 << 18
SHARD_TOKENS = 1 << 27


def build(
    source: str | Path | Iterable[Document],
    folder: str | Path,
    *,
    tokenizer: Tokenizer,
    field: str | None = None,
    target: str | None = None,
    held_out: float = 0.05,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
    shard_tokens: int = SHARD_TOKENS,
) -> Corpus:
    """Returns a new corpus, complete or absent: the same files for the same documents, settings and tokenizer.

    Args:
        source: what `sources.documents` takes, or documents themselves.
        folder: where it will lie; it must not exist yet.
        tokenizer: makes the ids; its end token follows each document.
        field: which field of .jsonl, .tsv and .parquet holds the text; None takes the first of the usual names.
        target: which field holds the targets of pairs, whose sources are in ``field``; None reads single texts.
        held_out: the share of the documents that becomes ``valid``; 0 for none.
        seed: draws other documents for ``valid``.
        workers: threads that tokenize; None is one a core.
        progress: called with the bytes of text done and in all, None where that is not known.
        shard_tokens: the size of a shard.

    Raises:
        DataError: the source cannot be read, the folder exists, too little text is left on a side, some documents are
            pairs and others are not, or fields are named and documents are given.
        StorageError: the folder cannot be written.
    """
    _check(tokenizer, held_out=held_out, workers=workers, shard_tokens=shard_tokens)
    told = isinstance(source, str | Path)
    if not told and (field, target) != (None, None):
        raise DataError("field and target name fields of files, and documents were given; leave them out")
    total = total_bytes(source) if told and progress else None
    sides = Sides(fraction=held_out, seed=seed)
    with written_beside(folder) as building, ExitStack() as stack:
        dtype = "uint16" if tokenizer.vocab <= 1 << 16 else "uint32"
        writers = {
            side: stack.enter_context(SplitWriter(building / side, dtype=dtype, shard_tokens=shard_tokens))
            for side in (TRAIN, VALID)
        }
        batches = _batches(sides.sort(documents(source, field=field, target=target) if told else source))
        encode = partial(_encode, tokenizer=tokenizer, dtype=dtype)
        for batch, ids in _in_order(encode, batches, workers=workers or _cores()):
            for document, row in zip(batch, ids, strict=True):
                writers[document.side].add(document, row)
            if progress:
                progress(sides.done_bytes, total)
        tokenizer.save(building / layout.TOKENIZER)
        manifest = {
            "format": layout.FORMAT,
            "source": str(source) if told else "documents given by a program",
            "held_out": held_out,
            "seed": seed,
            "duplicates": sides.duplicates,
            "pairs": sides.pairs,
            "vocab": tokenizer.vocab,
            "end": tokenizer.end,
            "tokenizer": tokenizer.fingerprint,
            "dtype": dtype,
            "splits": {side: writer.finish() for side, writer in writers.items()},
        }
        file = HashedFile(building / layout.MANIFEST)
        file.write(json.dumps(manifest, indent=2).encode() + b"\n")
        file.close()
    return Corpus.open(folder)


def _check(tokenizer: Tokenizer, *, held_out: float, workers: int | None, shard_tokens: int) -> None:
    if tokenizer.end is None:
        raise DataError("the tokenizer has no token that ends a document; set tokenizer.end to the id of one")
    if not 0 <= held_out < 1:
        raise DataError(f"held_out={held_out} is no share of the documents; choose 0 to below 1, such as 0.05")
    if workers is not None and workers < 1:
        raise DataError(f"workers={workers} cannot work; choose 1 or more")
    if shard_tokens < 1:
        raise DataError(f"shard_tokens={shard_tokens} can hold nothing; choose 1 or more")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _batches(documents: Iterable[Sided]) -> Iterator[list[Sided]]:
    batch: list[Sided] = []
    batch_bytes = 0
    for document in documents:
        # Short documents count more than their text: each has objects of its own.
        cost_bytes = document.text_bytes + 512
        if batch and batch_bytes + cost_bytes > BATCH_BYTES:
            yield batch
            batch, batch_bytes = [], 0
        batch.append(document)
        batch_bytes += cost_bytes
    if batch:
        yield batch


def _encode(batch: list[Sided], *, tokenizer: Tokenizer, dtype: str) -> list[Ids]:
    """The ids of each document and the end token, as arrays: lists of numbers would take twenty times the memory."""
    rows = tokenizer.encode_batch([document.text for document in batch])
    return [np.array([*row, tokenizer.end], dtype=dtype) for row in rows]


def _in_order(
    encode: Callable[[list[Sided]], list[Ids]], batches: Iterable[list[Sided]], *, workers: int
) -> Iterator[tuple[list[Sided], list[Ids]]]:
    """Yields the batches in order with their ids; as many as there are workers are under way."""
    with _no_threads_inside(), ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[list[Sided], Future[list[Ids]]]] = deque()
        for batch in batches:
            waiting.append((batch, pool.submit(encode, batch)))
            if len(waiting) > workers:
                batch, ids = waiting.popleft()
                yield batch, ids.result()
        while waiting:
            batch, ids = waiting.popleft()
            yield batch, ids.result()


@contextmanager
def _no_threads_inside() -> Iterator[None]:
    """Turns off the tokenizer library's own threads, which would wait for the longest document of each batch."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


class HashedFile:
    """A new file that knows its size and its SHA-256 when it is closed."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.size_bytes = 0
        self._file = path.open("xb")
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> None:
        """Appends bytes."""
        self._file.write(data)
        self._hash.update(data)
        self.size_bytes += len(data)

    def close(self) -> None:
        """Closes the file, once it has reached the disk."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def told(self) -> dict[str, Json]:
        """Returns what the manifest says of the file."""
        return {"bytes": self.size_bytes, "sha256": self._hash.hexdigest()}


class SplitWriter:
    """Writes one side of a corpus, document by document; the form is told in `corpus`."""

    def __init__(self, folder: Path, *, dtype: str, shard_tokens: int) -> None:
        folder.mkdir()
        self._folder = folder
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._shard_tokens = shard_tokens
        self._starts, self._text_bytes, self._names = self._index = [
            HashedFile(folder / name) for name in (layout.STARTS, layout.TEXT_BYTES, layout.NAMES)
        ]
        self._shards: list[HashedFile] = []
        self._documents = self._bytes = self._tokens = 0
        self._max_id = -1

    def __enter__(self) -> SplitWriter:
        return self

    def __exit__(self, *fault: object) -> None:
        for file in (*self._index, *self._shards):
            file.close()

    def add(self, document: Sided, ids: Ids) -> None:
        """Appends a document with its ids, the end token included."""
        self._starts.write(_number(self._tokens))
        self._text_bytes.write(_number(document.text_bytes))
        self._names.write(json.dumps(document.name).encode() + b"\n")
        self._documents += 1
        self._bytes += document.text_bytes
        self._max_id = max(self._max_id, int(ids.max()))
        while len(ids):
            room = self._shard_tokens - self._tokens % self._shard_tokens
            if room == self._shard_tokens:
                self._next_shard()
            now, ids = ids[:room], ids[room:]
            self._shards[-1].write(now.astype(self._dtype).tobytes())
            self._tokens += len(now)

    def finish(self) -> dict[str, Json]:
        """Closes all files and returns what the manifest says of them."""
        self._starts.write(_number(self._tokens))
        self.__exit__()
        return {
            "documents": self._documents,
            "text_bytes": self._bytes,
            "tokens": self._tokens,
            "max_id": self._max_id,
            "files": {file.name: file.told() for file in (*self._index, *self._shards)},
        }

    def _next_shard(self) -> None:
        if self._shards:
            self._shards[-1].close()
        self._shards.append(HashedFile(self._folder / f"tokens-{len(self._shards):05d}.bin"))


def _number(value: int) -> bytes:
    return value.to_bytes(8, "little")
