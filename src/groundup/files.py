"""Writing that leaves the old or the new, never a half, at a crash, a full disk or Ctrl-C; and small readings."""

from __future__ import annotations

import errno
import glob
import json
import os
import shutil
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from groundup.errors import ConfigError, StorageError, writing

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

REPLACED = ".replaced"  # ends the hidden name of a folder whose successor is being put in its place


def as_path(given: str | os.PathLike[str]) -> Path:
    """Returns a place that a user names as a path; ``~`` at its beginning is the user's home.

    Raises:
        ConfigError: it is neither text nor a path.
    """
    if not isinstance(given, str | os.PathLike) or "\0" in str(given):
        raise ConfigError(f"{given!r} is no place on a disk; give the path of a file or a folder")
    return Path(os.path.expanduser(given))


def read_limited(path: Path, *, most_bytes: int) -> bytes:
    """Returns the content of a file that describes something, and is therefore small.

    Raises:
        OSError: the file is larger, or cannot be read.
    """
    size = path.stat().st_size
    if size > most_bytes:
        raise OSError(errno.EFBIG, f"it has {size:,} bytes, and a file of its kind at most {most_bytes:,}")
    return path.read_bytes()


def atomic_write(path: Path, content: bytes | str) -> None:
    """Replaces the file by one with this content; text is written as UTF-8.

    Raises:
        StorageError: the disk is full or the place cannot be written; the old file is still there.
    """
    temporary = beside(path)
    with writing(path):
        try:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
            flush(temporary)
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        flush(path.parent)


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """Gives an empty hidden folder that becomes the one at ``path``, brought to the disk, when the block ends well.

    What stood at ``path`` goes only then; if the block fails, or the process dies, it stays or comes back.

    Raises:
        StorageError: the disk is full or the place cannot be written.
    """
    temporary, name = beside(path), glob.escape(path.name)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        put_back(path.parent, names=name)
        remove_abandoned(path.parent, names=name)
        try:
            temporary.mkdir()
            yield temporary
            flush_all(temporary)
            _put(temporary, path)
        except BaseException:
            with suppress(OSError):
                put_back(path.parent, names=name)
                remove(temporary)
            raise


@contextmanager
def scratch(path: Path) -> Generator[Path]:
    """Gives an empty hidden folder beside ``path`` that goes when the block ends.

    What a process that dies leaves of it is found by `remove_abandoned`.

    Raises:
        StorageError: the disk is full or the place cannot be written.
    """
    temporary = beside(path)
    with writing(path.parent):
        temporary.mkdir()
        try:
            yield temporary
        finally:
            remove(temporary)


@contextmanager
def alone(folder: Path) -> Generator[None]:
    """Keeps other processes from working in a folder meanwhile; a process that dies lets go of it.

    Raises:
        StorageError: another process works in it.
    """
    if fcntl is None:  # Windows, which cannot open folders
        yield
        return
    with writing(folder):
        handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as taken:
            raise StorageError(f"another process works on {folder}; wait for it, or stop it first") from taken
        except OSError:
            pass  # a disk without locks
        yield
    finally:
        os.close(handle)


def put_back(folder: Path, *, names: str) -> None:
    """Finishes what a crash in `replacing` left: the old folder returns, or goes if the new one stands.

    Args:
        folder: where it happened.
        names: the pattern of the names to look after.
    """
    for replaced in folder.glob(f".{names}{REPLACED}"):
        path = folder / replaced.name.removeprefix(".").removesuffix(REPLACED)
        if path.exists():
            remove(replaced)
        else:
            replaced.rename(path)


def remove_abandoned(folder: Path, *, names: str) -> None:
    """Removes what processes that no longer run, or this one, left unfinished in ``folder`` under such names."""
    for path in folder.glob(f".{names}.tmp-*"):
        pid = path.name.rpartition("-")[2]
        if pid.isdigit() and (int(pid) == os.getpid() or not _runs(int(pid))):
            remove(path)


def beside(path: Path) -> Path:
    """Returns the hidden name beside ``path`` under which this process writes it until it is complete."""
    return path.with_name(f".{path.name}.tmp-{os.getpid()}")


def remove(path: Path) -> None:
    """Removes a file or a folder with all that is in it."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Returns when the file, or the list of names in the folder, is on the disk itself."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open folders, and keeps their names safe by itself
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_all(folder: Path) -> None:
    """Returns when everything below the folder, and the folder itself, is on the disk itself."""
    for path in [*folder.rglob("*"), folder]:
        flush(path)


@contextmanager
def interrupt_deferred() -> Generator[None]:
    """Holds back Ctrl-C until the block ends; a second one comes through at once."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield  # only the main thread receives signals, and a handler set outside Python could not be put back
        return
    pressed = False

    def hold(_signal: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            signal.signal(signal.SIGINT, before)
            signal.raise_signal(signal.SIGINT)
        pressed = True

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        signal.raise_signal(signal.SIGINT)


def _put(temporary: Path, path: Path) -> None:
    replaced = path.with_name(f".{path.name}{REPLACED}")
    if path.exists():
        path.rename(replaced)
    temporary.rename(path)
    flush(path.parent)
    if replaced.exists():
        remove(replaced)


def _runs(pid: int) -> bool:
    if os.name == "nt":
        return True  # there, signal 0 is Ctrl-C
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return True


def json_lines(path: Path) -> list[dict[str, Any]]:
    """Returns the objects of a file that has one a line; what a crash or a writer at work cut is left out.

    A file that is not there, or cannot be read, has none.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    found: list[dict[str, Any]] = []
    for line in text.splitlines():
        with suppress(ValueError, RecursionError):
            data = json.loads(line)
            found += [data] if isinstance(data, dict) else []
    return found
