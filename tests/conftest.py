"""The conditions under which every test runs: checked signatures, one seed, no network, the same result twice."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

import signatures

signatures.install()

torch.use_deterministic_algorithms(True)  # also fills torch.empty with NaN, so that unwritten memory is seen

# Tensors are tiny here; on a busy machine, two threads that wait for each other take seven times as long as one.
torch.set_num_threads(1)

# The clock of a shared machine is no property of the code, and a test that fails must fail again.
settings.register_profile("groundup", deadline=None, derandomize=True)
settings.load_profile("groundup")

os.environ["HF_HUB_OFFLINE"] = "1"

# Tests press Ctrl-C, which what a shell starts in the background ignores.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What is measured and remembered under these conditions is not for the user's own cache.
_cache = tempfile.TemporaryDirectory(prefix="groundup-tests-")
os.environ["GROUNDUP_CACHE"] = _cache.name


def _refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    """Fails a test that leaves this machine; sockets to the machine itself are free."""
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    if host not in (None, "", "localhost", "127.0.0.1", "::1", b"localhost"):
        pytest.fail(f"tests have no network, but {event} was called for {host!r}")


sys.addaudithook(_refuse_network)


@pytest.fixture(autouse=True)
def _one_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """What other tests compiled counts against no limit of the compiler's."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def unchecked_signatures() -> Iterator[None]:
    """For modules whose models others run with checked signatures, which take half the time of a test."""
    with signatures.unchecked():
        yield


@pytest.fixture
def another_user(tmp_path: Path) -> Iterator[None]:
    """Takes the right to read ``closed`` and ``runs/closed`` from this process."""
    closed = (tmp_path / "closed", tmp_path / "runs" / "closed")
    for place in closed:
        place.mkdir(parents=True)
        place.chmod(0)
    tmp_path.chmod(0o755)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    yield
    if is_root:
        os.seteuid(0)
    for place in closed:
        place.chmod(0o700)
