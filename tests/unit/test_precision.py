import ctypes
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from groundup.errors import ConfigError
from groundup.training.precision import autocast, autocast_dtype, best, keep_freed_memory, pick_device

CPU = torch.device("cpu")


def test_without_a_name_the_device_is_one_that_computes():
    device = pick_device()
    assert torch.ones(2, device=device).sum().item() == 2
    assert pick_device("cpu") == CPU


@pytest.mark.parametrize("name", ["cpu:1", "cuda:99", "xpu", "toaster", ""])
def test_a_device_that_is_not_here_is_refused_with_those_that_are(name):
    with pytest.raises(ConfigError, match=r"cpu"):
        pick_device(name)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_products_run_in_the_dtype_that_was_chosen_and_sums_in_float32(precision):
    dtype, x = autocast_dtype(precision, CPU), torch.ones(4, 4)
    with autocast(CPU, dtype):
        assert (x @ x).dtype == dtype
        assert torch.nn.functional.layer_norm(x, (4,)).dtype == torch.float32


def test_auto_is_the_best_and_has_the_kernels_it_needs():
    chosen = autocast_dtype("auto", CPU)
    assert chosen == best(CPU)
    flags = Path("/proc/cpuinfo")
    if platform.machine() == "x86_64" and flags.exists():
        assert (chosen == torch.bfloat16) == ("avx512_bf16" in flags.read_text())


def test_an_apple_gpu_and_the_meta_device_get_float32():
    assert best(torch.device("mps")) == torch.float32
    assert best(torch.device("meta")) == torch.float32


def test_a_precision_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match=r"'fp16' does not exist; choose auto, bf16 or fp32"):
        autocast_dtype("fp16", CPU)


FAULTS = """
import mmap, resource, torch
from groundup.training.precision import keep_freed_memory
kept = keep_freed_memory()
block = 64 * 2**20
for _ in range(12):  # glibc needs a few rounds until its free lists of aligned blocks are settled
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
