"""The measurements of `groundup.planner.machine`: PyTorch's kernels, timed.

The sizes are those of small models' steps, and every figure is that of its fastest run: what the machine can do, not
what other programs left of it for a moment; the figures are kept, the moment passes. So that no moment spoils all
runs of one figure, they are taken in rounds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.context import Batch
from groundup.families.llama import llama
from groundup.objectives.next_token import next_token
from groundup.objectives.objective import Shape
from groundup.optim.optimizers import AdamW
from groundup.planner.rehearsal import rehearse

PRODUCTS = (
    (1024, 256, 256),
    (4096, 256, 768),
    (768, 4096, 256),
    (1024, 768, 3072),
    (3072, 1024, 768),
    (512, 768, 4096),
)
# A few rows with weights that no cache holds, as each token is written: 64 MiB of them in float32.
THIN_PRODUCTS = ((1, 2048, 8192), (4, 2048, 8192), (16, 2048, 8192))
ATTENTIONS = ((128, 2, 16, 64), (16, 4, 64, 64), (8, 4, 128, 128), (4, 4, 256, 256), (1, 4, 1024, 1024))  # (B, H, T, S)
HEAD_WIDTH = 64
RECURRENT = (8, 128, 256)  # (B, T, D) of an LSTM
NUMBERS = 2**24  # of a tensor of 64 MiB, beyond the caches, as a step's activations together are
SPECIAL_NUMBERS = 2**20
SPECIALS: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": torch.exp,
    "silu": F.silu,
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "softmax": lambda x: x.view(-1, 4096).softmax(-1),
}
Runs = Callable[[], object]
TINY = llama(width=16, layers=4, heads=2, hidden=32, vocab=64, context=8)
ROUNDS = 5
SECONDS_EACH = 0.008  # spent on a figure in a round, or one run; 45 figures where two types are measured


@dataclass(frozen=True)
class Sample:
    """A rate that was measured.

    Attributes:
        name: ``product``, ``attention``, ``attention_backward``, ``recurrent``, ``recurrent_backward`` (operations per
            second), ``stream``, ``read`` (bytes per second), a key of `SPECIALS` (numbers per second), ``launch``
            (operations on next to nothing per second).
        dtype: of what it was measured on.
        size: (m, k, n) of a product, (T, S) of attention, else empty.
        per_second: the rate of the fastest run.
    """

    name: str
    dtype: str
    size: tuple[int, ...]
    per_second: float


@dataclass(frozen=True)
class _Trial:
    """What is timed for a sample, and how much of it one run does."""

    name: str
    dtype: str
    size: tuple[int, ...]
    amount: float
    run: Runs


def samples(device: torch.device, dtypes: tuple[torch.dtype, ...]) -> list[Sample]:
    """Returns everything that is measured of a device; ``dtypes`` are those that it multiplies matrices in."""
    trials = [trial for dtype in dtypes for trial in _computing(device, dtype)] + list(_moving(device))
    for trial in trials:
        _timed(device, trial.run)  # the first run chooses kernels and loads them
    rounds = [[_seconds(device, trial.run) for trial in trials] for _ in range(ROUNDS)]
    fastest = [max(min(times), 1e-9) for times in zip(*rounds, strict=True)]
    return [Sample(t.name, t.dtype, t.size, t.amount / least) for t, least in zip(trials, fastest, strict=True)]


def _computing(device: torch.device, dtype: torch.dtype) -> Iterator[_Trial]:
    name = str(dtype).removeprefix("torch.")
    for m, k, n in PRODUCTS + THIN_PRODUCTS:
        yield _Trial("product", name, (m, k, n), 2 * m * k * n, _product(device, dtype, m, k, n))
    for size in ATTENTIONS:
        flops = 4 * math.prod(size) * HEAD_WIDTH
        forward, backward = _attention(device, dtype, *size)
        yield _Trial("attention", name, size[2:], flops, forward)
        yield _Trial("attention_backward", name, size[2:], 2 * flops, backward)
    if device.type != "mps":
        flops, (forward, backward) = 16 * math.prod(RECURRENT) * RECURRENT[-1], _recurrent(device, dtype)
        yield _Trial("recurrent", name, (), flops, forward)
        yield _Trial("recurrent_backward", name, (), 2 * flops, backward)
    x = torch.randn(SPECIAL_NUMBERS, device=device).to(dtype)
    for special, function in SPECIALS.items():
        yield _Trial(special, name, (), SPECIAL_NUMBERS, lambda function=function: function(x))


def _moving(device: torch.device) -> Iterator[_Trial]:
    x, y = torch.ones(NUMBERS, device=device), torch.ones(NUMBERS, device=device)
    yield _Trial("stream", "float32", (), 2 * x.nbytes, lambda: torch.mul(x, 1.5, out=y))
    yield _Trial("read", "float32", (), x.nbytes, x.sum)
    count, run = _tiny_step(device)
    yield _Trial("launch", "float32", (), count, run)


def _tiny_step(device: torch.device) -> tuple[float, Runs]:
    """Returns how many operations the forward and the backward of a tiny model are, and what runs them."""
    shape, ids = Shape.even(TINY.longest), torch.zeros(1, TINY.longest, dtype=torch.int64, device=device)
    parts = rehearse(TINY, rows=1, shape=shape, dtype=torch.float32, optimizer=AdamW(), device=device.type)
    count = sum(part.count * times for part in parts for _, times in part.forward + part.backward)
    model = TINY.build().to(device)
    batch = Batch(ids=ids, targets=ids, segments=ids, positions=ids)
    return count, lambda: next_token(model, batch).total.backward()


def _product(device: torch.device, dtype: torch.dtype, m: int, k: int, n: int) -> Callable[[], Tensor]:
    turned = k > max(m, n)  # a gradient of weights sums over the tokens, which come first in both tensors
    a, b = (torch.randn(size, device=device).to(dtype) for size in (((k, m), (k, n)) if turned else ((m, k), (n, k))))
    out = torch.empty(m, n, device=device, dtype=dtype)
    return lambda: torch.mm(a.T, b, out=out) if turned else torch.mm(a, b.T, out=out)


def _attention(device: torch.device, dtype: torch.dtype, rows: int, heads: int, t: int, s: int) -> tuple[Runs, Runs]:
    settings = {"device": device, "dtype": dtype, "requires_grad": True}
    q, k, v = (torch.randn(rows, heads, tokens, HEAD_WIDTH, **settings) for tokens in (t, s, s))
    return _both_ways(lambda: F.scaled_dot_product_attention(q, k, v), (q, k, v))


def _recurrent(device: torch.device, dtype: torch.dtype) -> tuple[Runs, Runs]:
    width = RECURRENT[-1]
    model = nn.LSTM(width, width, batch_first=True, device=device, dtype=dtype)
    x = torch.randn(RECURRENT, device=device, dtype=dtype, requires_grad=True)
    return _both_ways(lambda: model(x)[0], (x, *model.parameters()))


def _both_ways(forward: Callable[[], Tensor], leaves: tuple[Tensor, ...]) -> tuple[Runs, Runs]:
    """Returns what runs a forward, and what runs its backward again and again."""
    y = forward()
    grad = torch.ones_like(y)
    return forward, lambda: torch.autograd.grad(y, leaves, grad, retain_graph=True)


def _seconds(device: torch.device, run: Runs) -> float:
    """The time of the fastest run of a round."""
    times = [_timed(device, run)]
    while sum(times) < SECONDS_EACH and len(times) < 200:
        times.append(_timed(device, run))
    return min(times)


def _timed(device: torch.device, run: Runs) -> float:
    began = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter() - began
