"""Law 4 for kernels that others wrote: what they make, and its gradients, is what the definition makes.

The real kernels run in Triton's interpreter, in a process of their own, because Triton is not to be there for the rest:

    pip install --no-deps --require-hashes -r .ci/kernels.txt --target kernels
    GROUNDUP_KERNELS=kernels pytest -m slow tests/interpreted
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.ops import delta_rule, diagonal_low_rank, kernels, linear_attention, ssd
from interpreted import interpreter
from laws.examples import EXAMPLES, lively, some_ids

WHERE = "GROUNDUP_KERNELS"
ROWS, HEADS, TOKENS, KEYS, VALUES = 2, 2, 37, 16, 8
TOLERANCE = 1e-5

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(WHERE not in os.environ, reason=f"{WHERE} names no folder with kernels; see .ci/kernels.txt"),
    pytest.mark.usefixtures("unchecked_signatures"),
    pytest.mark.filterwarnings("ignore"),  # of the packages, which none of their users can mend
]


@pytest.fixture(scope="module", autouse=True)
def _interpreted() -> None:
    interpreter.use(os.environ[WHERE])


def noise(*size: int, seed: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def share(*size: int, seed: int) -> Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed))


Q, K, N = (noise(ROWS, HEADS, TOKENS, KEYS, seed=seed) / 3 for seed in range(3))
V, B = noise(ROWS, HEADS, TOKENS, VALUES, seed=3), share(ROWS, HEADS, TOKENS, seed=4)
UNIT, GONE = F.normalize(K, dim=-1), F.normalize(N, dim=-1)
OF_KEYS, OF_HEADS, FIXED = -share(*Q.shape, seed=5), -share(*B.shape, 1, seed=5), -share(1, HEADS, 1, 1, seed=5)
STEPPED = (
    V.transpose(1, 2),
    B.mT,
    -share(HEADS, seed=6),
    *(noise(ROWS, TOKENS, 1, KEYS, seed=seed) for seed in (7, 8)),
)
CASES: dict[str, tuple[Callable[..., Any], Callable[..., Any], tuple[Tensor, ...], dict[str, Tensor]]] = {
    "linear attention": (kernels.linear_attention, linear_attention.reference, (Q, K, V), {}),
    "its heads decay": (kernels.linear_attention, linear_attention.reference, (Q, K, V), {"decay": OF_HEADS}),
    "its decay is fixed": (kernels.linear_attention, linear_attention.reference, (Q, K, V), {"decay": FIXED}),
    "its keys decay": (kernels.linear_attention, linear_attention.reference, (Q, K, V), {"decay": OF_KEYS}),
    "delta rule": (kernels.delta_rule, delta_rule.reference, (Q, UNIT, V, B), {}),
    "delta rule, heads decay": (kernels.delta_rule, delta_rule.reference, (Q, UNIT, V, 2 * B), {"decay": OF_HEADS}),
    "delta rule, keys decay": (kernels.delta_rule, delta_rule.reference, (Q, UNIT, V, B), {"decay": OF_KEYS}),
    "low rank": (
        kernels.diagonal_low_rank,
        diagonal_low_rank.reference,
        (Q, K, V, GONE, GONE * B[..., None]),
        {"decay": OF_KEYS / 2},
    ),
    "state space duality": (kernels.ssd, ssd.reference, STEPPED, {}),
}


def values_and_gradients(
    operation: Callable[..., Any], given: tuple[Tensor, ...], named: dict[str, Tensor | None]
) -> tuple[Tensor, ...]:
    """Returns what is read, the last state, and the gradients of a weighing of both."""
    given = tuple(t.clone().requires_grad_() for t in given)
    learnt = {name: t.clone().requires_grad_() for name, t in named.items() if t is not None and t.is_floating_point()}
    read, state = operation(*given, **{**named, **learnt})
    weighed = torch.cat([t.flatten() * torch.linspace(-1, 1, t.numel()) for t in (read, state)]).sum()
    return read, state, *torch.autograd.grad(weighed, [*given, *learnt.values()])


@pytest.mark.parametrize("documents", [False, True], ids=["one document", "documents"])
@pytest.mark.parametrize("continued", [False, True], ids=["from nothing", "from a state"])
@pytest.mark.parametrize("name", CASES)
def test_a_kernel_makes_what_the_definition_makes(name: str, continued: bool, documents: bool):
    kernel, definition, given, named = CASES[name]
    starts = torch.zeros(ROWS, TOKENS, dtype=torch.bool)
    starts[0, [0, 9]] = starts[1, [3, 4, 20]] = True
    before = noise(ROWS, HEADS, KEYS, VALUES, seed=8)
    state = {"before": before.mT} if definition is ssd.reference else {"state": before}
    named = {**named, **(state if continued else {}), "starts": starts if documents else None}
    made = values_and_gradients(kernel, given, named)
    told = values_and_gradients(definition, given, named)
    for ours, theirs in zip(made, told, strict=True):
        assert (ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max()


@pytest.mark.parametrize("name", ["linear attention", "delta rule", "rwkv, matrices", "mamba2-130m"])
@torch.no_grad()
def test_models_read_packed_documents_alike_through_kernels(name: str, monkeypatch: pytest.MonkeyPatch):
    model, ids = lively(EXAMPLES[name], torch.float32), some_ids(2, 21)
    segments = (torch.arange(21) >= torch.tensor([[5], [13]])).long()
    told, run, used = model(ids, segments=segments), kernels._run, []
    monkeypatch.setattr(kernels, "keep_matrices", lambda v, **_: v.shape[2] > 1)
    monkeypatch.setattr(kernels, "_run", lambda kernel, *given: used.append(kernel) or run(kernel, *given))
    made = model(ids, segments=segments)
    assert used
    assert (made - told).abs().max() < 1e-4 * told.abs().max()
