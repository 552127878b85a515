"""How much memory this process may have: the machine's, or less where it is held to a limit.

Limits are those of control groups of both versions (cgroups(7)), of the process's own group and of all around it, and
of ``ulimit -v`` and ``ulimit -d`` (getrlimit(2)). What ulimit counts is address space, of which a process has more than
it holds; what it has beyond that already is taken off the limit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from groundup.planner.measure import status_bytes

CGROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
NAMES = ("memory.max", "memory.limit_in_bytes")


def memory_bytes() -> int:
    """Returns the most memory that this process may have."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([whole, *_of_groups(), *_of_ulimit()])


def _of_groups() -> Iterator[int]:
    for group in _groups():
        for name in NAMES:
            with suppress(OSError, ValueError):  # there is no such file, or no limit, which reads "max"
                yield int((group / name).read_text())


def _groups() -> Iterator[Path]:
    """Yields the folders of the control groups that this process is in, and of those around them."""
    lines = []
    with suppress(OSError):
        lines = [line.split(":", 2) for line in OWN_GROUPS.read_text().splitlines()]
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controllers in ("", "memory"):
            root = CGROUPS / controllers
            own = root / path.lstrip("/")
            yield from (own, *(parent for parent in own.parents if parent.is_relative_to(root)))


def _of_ulimit() -> Iterator[int]:
    with suppress(ImportError):  # Windows has no such module
        import resource

        counts = {resource.RLIMIT_AS: ("VmSize", "VmRSS"), resource.RLIMIT_DATA: ("VmData", "RssAnon")}
        for limit, (counted, held) in counts.items():
            most, _ = resource.getrlimit(limit)
            if most != resource.RLIM_INFINITY:
                beyond = (status_bytes(counted) or 0) - (status_bytes(held) or 0)
                yield max(most - max(beyond, 0), 1)
