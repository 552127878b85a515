import platform
from pathlib import Path

import pytest
import torch

from groundup.devices import autocast, autocast_dtype, best, pick_device
from groundup.errors import ConfigError

CPU = torch.device("cpu")


def test_without_a_name_the_device_is_one_that_computes():
    device = pick_device()
    assert torch.ones(2, device=device).sum().item() == 2
    assert pick_device("cpu") == pick_device(CPU) == CPU


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
