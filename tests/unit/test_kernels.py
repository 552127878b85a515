"""When kernels of others are taken, and what is made for those that no test here can run, beside stand-ins of them."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from groundup.ops import kernels, selective_scan

pytestmark = pytest.mark.usefixtures("unchecked_signatures")  # for what stands in for a tensor on a GPU

GPU: dict[str, Any] = {"is_cuda": True, "dtype": torch.bfloat16}


def scan(
    u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, *, return_last_state: bool
) -> tuple[Tensor, Tensor]:
    """Stands in for mamba-ssm's selective_scan_fn: u and delta (B, D, L), a (D, N), b and c (B, N, L), all float32."""
    assert return_last_state
    assert all(t.dtype == torch.float32 and t.is_contiguous() for t in (u, delta, a, b, c))
    h, read = u.new_zeros(*u.shape[:2], a.shape[1]), []
    for t in range(u.shape[2]):
        h = (delta[:, :, t, None] * a).exp() * h + delta[:, :, t, None] * b[:, None, :, t] * u[:, :, t, None]
        read.append((h * c[:, None, :, t]).sum(-1))
    return torch.stack(read, -1), h.detach()


@pytest.fixture
def _mamba_ssm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.selective_scan_interface"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules[name], "selective_scan_fn", scan, raising=False)


@pytest.mark.usefixtures("_mamba_ssm")
@pytest.mark.parametrize("begins", [None, [], [0], [4], [0, 1, 2, 8]], ids=str)
def test_a_selective_scan_that_knows_no_documents_is_given_them(begins: list[int] | None):
    x, b, c = (torch.randn(2, 9, size, requires_grad=True) for size in (3, 4, 4))
    step, a = torch.rand(2, 9, 3, requires_grad=True), (-torch.rand(4, 3)).requires_grad_()
    starts = None
    if begins is not None:
        starts = torch.zeros(2, 9, dtype=torch.bool)
        starts[0, begins] = starts[1, 6] = True
    leaves, results = (x, step, a, b, c), []
    for operation in (kernels.selective_scan, selective_scan.reference):
        y, state = operation(*leaves, starts=starts)
        weighed = (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum()
        results.append((y, state, *torch.autograd.grad(weighed, leaves)))
    for made, told in zip(*results, strict=True):
        torch.testing.assert_close(made, told)


@pytest.mark.parametrize(
    ("changes", "tokens", "side", "taken"),
    [
        ({}, 16, 256, True),
        ({"dtype": torch.float16}, 4096, 64, True),
        ({"dtype": torch.float32}, 16, 64, False),
        ({"dtype": torch.float64}, 16, 64, False),
        ({"is_cuda": False}, 16, 64, False),
        ({}, 15, 64, False),
        ({}, 16, 257, False),
    ],
)
def test_matrices_are_kept_by_kernels_where_they_are_there_and_as_exact(
    changes: dict[str, Any], tokens: int, side: int, taken: bool, monkeypatch: pytest.MonkeyPatch
):
    values: Any = SimpleNamespace(**GPU | changes)
    monkeypatch.setattr(kernels, "INSTALLED", {"fla"})
    assert kernels.keep_matrices(values, tokens=tokens, sides=(16, side)) is taken
    monkeypatch.setattr(kernels, "INSTALLED", {"mamba_ssm"})
    assert not kernels.keep_matrices(values, tokens=tokens, sides=(16, side))


def test_float32_may_be_multiplied_in_tf32_by_kernels_only_where_it_may_be_elsewhere(monkeypatch: pytest.MonkeyPatch):
    values: Any = SimpleNamespace(**GPU | {"dtype": torch.float32})
    monkeypatch.setattr(kernels, "INSTALLED", {"fla"})
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert kernels.keep_matrices(values, tokens=64, sides=(64, 64))


def test_a_selective_scan_is_taken_that_begins_with_nothing(monkeypatch: pytest.MonkeyPatch):
    inputs, before = [SimpleNamespace(**GPU | changes) for changes in ({}, {"is_cuda": False})], torch.zeros(1)
    monkeypatch.setattr(kernels, "INSTALLED", {"mamba_ssm"})
    on_gpu, on_processor = inputs
    wide: Any = SimpleNamespace(**GPU | {"dtype": torch.float64})
    taken: Any = kernels.scan_selectively
    assert taken(on_gpu, before=None)
    assert not any((taken(on_gpu, before=before), taken(on_processor, before=None), taken(wide, before=None)))
