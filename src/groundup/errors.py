"""What can go wrong by a mistake that its reader can mend.

Every message says what was given, what was expected and what to do. The command line prints it without a
traceback and exits with 2.

    GroundupError
    ├── SpecError         sizes or fields of a spec that do not fit together
    ├── ConfigError       a setting that does not exist, or has a value of the wrong kind
    ├── ModelError        a MODEL that cannot be found or is not one
    ├── WeightsError      weights that do not belong to the model that reads them
    ├── TextError         a tokenizer, a chat template or a text that cannot be read
    ├── DataError         a corpus that is missing, empty, unreadable or too small
    ├── TrainingError     a run that cannot go on: loss or gradients that are not finite
    ├── CheckpointError   a checkpoint that is incomplete, changed or of another kind
    ├── GenerationError   a prompt or a sampling setting that the model cannot take
    ├── StorageError      a disk that is full, or a place that cannot be written
    └── MissingExtra      an optional package that is not installed
"""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path


class GroundupError(Exception):
    """A mistake that its reader can mend; the base of all errors of this package."""


class SpecError(GroundupError, ValueError):
    """Sizes or fields of a spec that do not fit together."""


class ConfigError(GroundupError, ValueError):
    """A setting that does not exist, or has a value of the wrong kind."""


class ModelError(GroundupError, LookupError):
    """A MODEL that cannot be found or is not one."""


class WeightsError(GroundupError, ValueError):
    """Weights that do not belong to the model that reads them."""


class TextError(GroundupError, ValueError):
    """A tokenizer, a chat template or a text that cannot be read."""


class DataError(GroundupError, ValueError):
    """A corpus that is missing, empty, unreadable or too small."""


class TrainingError(GroundupError, ArithmeticError):
    """A run that cannot go on."""


class CheckpointError(GroundupError, ValueError):
    """A checkpoint that is incomplete, changed or of another kind."""


class GenerationError(GroundupError, ValueError):
    """A prompt or a sampling setting that the model cannot take."""


class StorageError(GroundupError, OSError):
    """A disk that is full, or a place that cannot be written."""


class MissingExtra(GroundupError, ImportError):
    """An optional package that is not installed."""

    def __init__(self, package: str, *, purpose: str, extra: str) -> None:
        super().__init__(f"{purpose} needs the package {package}: pip install 'groundup[{extra}]'")
        self._again = partial(MissingExtra, package, purpose=purpose, extra=extra)

    def __reduce__(self) -> tuple[partial[MissingExtra], tuple[()]]:
        return self._again, ()  # exceptions of worker processes are pickled, and pickle passes no keywords


def one_line(fault: BaseException) -> str:
    """Returns what another's exception says, on one line."""
    return " ".join(str(fault).split())


def in_words(fault: BaseException) -> str:
    """Returns the kind of another's exception, and what it says, on one line."""
    return f"{type(fault).__name__}: {one_line(fault)}"


def nearest(given: str, names: Iterable[str]) -> str:
    """Returns ``did you mean 'a' or 'b'?`` for names that begin so or are close to it, or the empty string."""
    by_lower, given = {name.lower(): name for name in names}, given.lower()
    begun = [name for name in by_lower if given and name.startswith(given)]
    close = list(dict.fromkeys([*begun, *difflib.get_close_matches(given, by_lower, n=3, cutoff=0.55)]))[:3]
    return f"did you mean {' or '.join(repr(by_lower[name]) for name in close)}?" if close else ""


_WRITE_FAULTS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "it is on a read-only file system",
    errno.EACCES: "it may not be written by this user",
    errno.EPERM: "it may not be written by this user",
    errno.ENOENT: "its folder was removed, or takes nothing new",
    errno.ENOTDIR: "a part of its path is a file, not a folder",
    errno.EISDIR: "a folder stands in its place",
    errno.EEXIST: "a file stands in the way",
    errno.EFBIG: "a file of it is too large for this system",
    errno.ENAMETOOLONG: "a name in it is too long for this system",
    errno.ELOOP: "its links lead in a circle",
    errno.EIO: "its device reports a failure",
}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the operating system's refusals to write below ``path`` into one sentence.

    Raises:
        StorageError: the disk is full or the place cannot be written.
    """
    try:
        yield
    except OSError as fault:
        if isinstance(fault, GroundupError) or fault.errno not in _WRITE_FAULTS:
            raise
        if fault.errno == errno.ENOENT and os.path.exists(path):
            raise  # what is missing is something that was to be read
        raise StorageError(
            f"cannot write {path}: {_WRITE_FAULTS[fault.errno]}; mend that, or choose another place"
        ) from fault
