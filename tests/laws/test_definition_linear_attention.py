"""Law 4 for states that are matrices: chunks equal the definition, with decays, states and documents."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from groundup.ops import delta_rule, linear_attention
from laws.test_definition import TOLERANCE, assert_equal, noise, precisions

ROWS, HEADS, KEYS, VALUES = 2, 3, 5, 6
every_length = pytest.mark.parametrize("tokens", [1, 63, 100])
documents = pytest.mark.parametrize("packed", [False, True])
states = pytest.mark.parametrize("continued", [False, True])
every_decay = pytest.mark.parametrize("decay", ["none", "of a head", "of a token", "of a key value"])


def decays(kind: str, tokens: int, dtype: torch.dtype) -> Tensor | None:
    """Returns log decays, some of which leave next to nothing."""
    size = {
        "none": None,
        "of a head": (1, HEADS, 1, 1),
        "of a token": (ROWS, HEADS, tokens, 1),
        "of a key value": (ROWS, HEADS, tokens, KEYS),
    }[kind]
    if size is None:
        return None
    strong = torch.rand(size, generator=torch.Generator().manual_seed(5)) < 0.1
    drawn = -noise(*size, seed=6).detach().abs()
    return torch.where(strong, 60 * drawn, 0.1 * drawn).to(dtype).requires_grad_()


def arguments(*, tokens: int, packed: bool, continued: bool, decay: str, dtype: torch.dtype):
    """Returns queries, keys of length 1 and values, and the rest by name."""
    q, k = (noise(ROWS, HEADS, tokens, KEYS, seed=seed, dtype=dtype) for seed in (0, 1))
    k = torch.nn.functional.normalize(k, dim=-1).detach().requires_grad_()
    v = noise(ROWS, HEADS, tokens, VALUES, seed=2, dtype=dtype)
    begins = torch.rand(ROWS, tokens, generator=torch.Generator().manual_seed(7)) < 0.1
    named = {
        "decay": decays(decay, tokens, dtype),
        "state": noise(ROWS, HEADS, KEYS, VALUES, seed=3, dtype=dtype) if continued else None,
        "starts": begins if packed else None,
    }
    return (q, k, v), named


def everything(operation, inputs, named):
    """Returns what is read, the state, and the gradients of a random weighing of both."""
    results = operation(*inputs, **named)
    weights = [noise(*result.shape, seed=8 + i).detach().to(result.dtype) for i, result in enumerate(results)]
    used = [t for t in (*inputs, *named.values()) if t is not None and t.requires_grad]
    return *results, *torch.autograd.grad(results, used, weights)


@precisions
@every_length
@every_decay
@states
@documents
def test_linear_attention_equals_its_definition(tokens, decay, continued, packed, dtype):
    inputs, named = arguments(tokens=tokens, packed=packed, continued=continued, decay=decay, dtype=dtype)
    fast, slow = (everything(op, inputs, named) for op in (linear_attention.chunked, linear_attention.reference))
    assert_equal(fast, slow, tolerance=TOLERANCE[dtype])


@precisions
@every_length
@every_decay
@states
@documents
def test_delta_rule_equals_its_definition(tokens, decay, continued, packed, dtype):
    inputs, named = arguments(tokens=tokens, packed=packed, continued=continued, decay=decay, dtype=dtype)
    part = (2 * torch.rand(ROWS, HEADS, tokens, generator=torch.Generator().manual_seed(4))).to(dtype).requires_grad_()
    fast, slow = (everything(op, (*inputs, part), named) for op in (delta_rule.chunked, delta_rule.reference))
    assert_equal(fast, slow, tolerance=TOLERANCE[dtype])


@every_decay
def test_linear_attention_and_the_delta_rule_in_bfloat16_are_near_to_float32(decay):
    inputs, named = arguments(tokens=300, packed=True, continued=True, decay=decay, dtype=torch.float32)
    part = torch.rand(ROWS, HEADS, 300, generator=torch.Generator().manual_seed(4))
    narrow = [t.bfloat16() for t in inputs]
    for module, more in ((linear_attention, ()), (delta_rule, (part,))):
        y, state = module.chunked(*narrow, *more, **named)
        truth, true_state = module.reference(*inputs, *more, **named)
        assert y.dtype == torch.bfloat16
        assert state.dtype == torch.float32
        assert (y.float() - truth).norm() < 0.01 * truth.norm()
        assert (state - true_state).norm() < 0.01 * true_state.norm()


@every_decay
def test_pieces_with_a_state_equal_the_whole(decay):
    inputs, named = arguments(tokens=50, packed=False, continued=True, decay=decay, dtype=torch.float64)
    whole, last = linear_attention.chunked(*inputs, **named)
    logs = torch.zeros_like(inputs[1]) if named["decay"] is None else named["decay"].expand_as(inputs[1])
    state, read = named["state"], []
    for q, k, v, g in zip(*(t.split([1, 20, 29], 2) for t in (*inputs, logs)), strict=True):
        y, state = linear_attention.chunked(q, k, v, decay=g, state=state)
        read.append(y)
    torch.testing.assert_close(torch.cat(read, 2), whole, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(state, last, rtol=1e-9, atol=1e-9)
