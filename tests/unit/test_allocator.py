import ctypes
import platform
import subprocess
import sys

import pytest

from groundup.training.allocator import keep_freed_memory

FAULTS = """
import mmap, resource, torch
from groundup.training.allocator import keep_freed_memory
kept = keep_freed_memory()
block = 64 * 2**20
for _ in range(40):  # glibc needs a few rounds until its free lists of aligned blocks are settled
    torch.ones(block // 4)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    torch.ones(block // 4)
print(kept, (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * mmap.PAGESIZE < block)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("environment", "expected"), [({}, True), ({"MALLOC_TRIM_THRESHOLD_": "131072"}, False)])
def test_freed_memory_is_kept_on_glibc_unless_the_environment_says_otherwise(environment, expected):
    done = subprocess.run([sys.executable, "-c", FAULTS], env=environment, capture_output=True, text=True, check=True)
    glibc = platform.libc_ver()[0] == "glibc"
    assert done.stdout.split()[0] == str(glibc and expected)
    if glibc:
        assert done.stdout.split()[1] == str(expected)


def test_another_allocator_or_setting_is_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda *_: pytest.fail("glibc was touched"))
    monkeypatch.setenv("LD_PRELOAD", "/usr/lib/libtcmalloc_minimal.so.4")
    assert keep_freed_memory() is False
    monkeypatch.delenv("LD_PRELOAD")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")
    assert keep_freed_memory() is False
