"""Law 4 for the recurrences of RWKV: every fast operation equals its definition, values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.ops import diagonal_low_rank, linear_scan, wkv
from groundup.ops.wkv import NOTHING, Sums
from laws.test_definition import TOLERANCE, assert_equal, noise


def drawn_starts(tokens: int) -> Tensor:
    return torch.rand(2, tokens, generator=torch.Generator().manual_seed(1)) < 0.1


def graded(operation, leaves, sums: Sums, **settings):
    """Returns the means, the sums, and the gradients of a random weighing of the means and of what the sums mean."""
    y, last = operation(*leaves, sums, **settings)
    made = [y, last.values / last.weights] if "lengths" not in settings else [y]
    drawn = [noise(*t.shape, seed=9, dtype=t.dtype).detach() for t in made]
    return y, *last, *torch.autograd.grad(made, leaves, drawn, materialize_grads=True)


@pytest.mark.parametrize("tokens", [1, 63, 100])
@pytest.mark.parametrize(("spread", "dtype"), [(1.0, torch.float64), (1.0, torch.float32), (30.0, torch.float64)])
def test_wkv_equals_its_definition(tokens, spread, dtype):
    k, v = (noise(2, tokens, 6, seed=seed, dtype=dtype) for seed in (0, 1))
    w, u = noise(6, seed=2, dtype=dtype), noise(6, seed=3, dtype=dtype)
    k, w = (spread * k).detach().requires_grad_(), (spread * w).exp().clamp(max=20).detach().requires_grad_()
    none = torch.zeros(2, 6, dtype=dtype)
    some = Sums(*(noise(2, 6, seed=seed, dtype=dtype).detach() for seed in (4, 5, 6)))
    read = Sums(some.values, some.weights.abs(), some.top)
    lengths = torch.tensor([tokens // 2, tokens])
    for sums, settings in (
        (Sums(none, none, none + NOTHING), {}),
        (Sums(none, none, none + NOTHING), {"starts": drawn_starts(tokens)}),
        (read, {}),
        (read, {"starts": drawn_starts(tokens)}),
        (read, {"lengths": lengths}),
    ):
        fast, slow = (graded(op, (k, v, w, u), sums, **settings) for op in (wkv.scanned, wkv.reference))
        if "lengths" in settings:
            real = (torch.arange(tokens) < lengths[:, None])[..., None]
            fast, slow = ([made[0] * real, *made[1:4]] for made in (fast, slow))
        assert_equal(fast, slow, tolerance=TOLERANCE[dtype])


def test_gradients_go_on_from_one_operation_into_the_other():
    k, v, w, u = (noise(2, 9, 6, seed=0), noise(2, 9, 6, seed=1), noise(6, seed=2), noise(6, seed=3))
    none = torch.zeros(2, 6, dtype=k.dtype)
    weighed = noise(2, 9, 6, seed=9).detach()
    found = []
    for first, second in ((wkv.reference, wkv.scanned), (wkv.reference, wkv.reference)):
        begun, sums = first(k[:, :4], v[:, :4], w.exp(), u, Sums(none, none, none + NOTHING))
        ended, _ = second(k[:, 4:], v[:, 4:], w.exp(), u, sums)
        found.append(torch.autograd.grad((torch.cat([begun, ended], 1) * weighed).sum(), (k, v, w, u)))
    assert_equal(*found, tolerance=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.complex128], ids=str)
@pytest.mark.parametrize("tokens", [1, 2, 63, 100])
@pytest.mark.parametrize("size", [(2, None, 3, 2), (2, None, 3, 1), (1, 1, 3, 2)], ids=["all", "shared", "fixed"])
def test_linear_scan_equals_its_definition(tokens, size, dtype):
    def drawn(*size, seed):
        wide = torch.complex128 if dtype.is_complex else torch.float64
        return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=wide).to(dtype).requires_grad_()

    a, b = drawn(*(tokens if n is None else n for n in size), seed=0), drawn(2, tokens, 3, 2, seed=1)
    for before in (drawn(2, 3, 2, seed=2), None):
        inputs = [a, b, *([before] if before is not None else [])]
        made = []
        for op in (linear_scan.scan, linear_scan.reference):
            held = op(0.5 * a, b, before)
            made.append((held, *torch.autograd.grad(held, inputs, drawn(*held.shape, seed=9).detach())))
        assert_equal(*made, tolerance=1e-5 if dtype == torch.float32 else 1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("tokens", [1, 63, 100])
@pytest.mark.parametrize("packed", [False, True])
def test_diagonal_low_rank_equals_its_definition(tokens, packed, dtype):
    q, k, v, n, p, decay = (noise(2, 3, tokens, 5 if i == 2 else 4, seed=i, dtype=dtype) for i in range(6))
    n = F.normalize(n, dim=-1).detach().requires_grad_()
    p = (n * p.sigmoid()).detach().requires_grad_()
    decay = (-decay.exp()).detach().requires_grad_()
    for state in (None, noise(2, 3, 4, 5, seed=7, dtype=dtype)):
        leaves = [q, k, v, n, p, decay, *([] if state is None else [state])]
        found = []
        for op in (diagonal_low_rank.chunked, diagonal_low_rank.reference):
            starts = drawn_starts(tokens) if packed else None
            made = op(q, k, v, n, p, decay=decay, state=state, starts=starts)
            drawn = [noise(*t.shape, seed=9, dtype=t.dtype).detach() for t in made]
            found.append([*made, *torch.autograd.grad(made, leaves, drawn)])
        assert_equal(*found, tolerance=TOLERANCE[dtype])
