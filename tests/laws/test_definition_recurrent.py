"""Law 4 for recurrent networks: every fast operation equals its definition, values and gradients, at awkward sizes."""

from __future__ import annotations

import pytest
import torch

from groundup.ops import recurrent
from groundup.ops.recurrent import GATES, Memory, Weights
from laws.test_definition import TOLERANCE, assert_equal, noise, precisions

quiet_dynamo = pytest.mark.filterwarnings("ignore:.* should not be instantiated:DeprecationWarning")


def inputs(cell: str, tokens: int, dtype: torch.dtype):
    """Returns x, the weights and the memory of 3 rows, 5 wide, with 4 hidden."""
    rows = GATES[cell] * 4
    sizes = [(3, tokens, 5), (rows, 5), (rows, 4), (rows,), (rows,), (3, 4), (3, 4)]
    return [noise(*size, seed=seed, dtype=dtype) for seed, size in enumerate(sizes)]


def graded(operation, cell: str, leaves, **settings):
    """Returns the output, what is in mind, its cell, and the gradients of a random weighing of them."""
    x, *weights, h, c = leaves
    y, memory = operation(cell, x, Weights(*weights), Memory(h, c), **settings)
    made = [t for t in (y, *memory) if t.requires_grad]
    drawn = [noise(*t.shape, seed=9, dtype=t.dtype).detach() for t in made]
    return y, *memory, *torch.autograd.grad(made, leaves, drawn, materialize_grads=True)


@precisions
@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("tokens", [1, 63, 100])
def test_recurrent_equals_its_definition(cell, tokens, dtype):
    leaves = inputs(cell, tokens, dtype)
    starts = torch.rand(3, tokens, generator=torch.Generator().manual_seed(1)) < 0.1
    lengths = [torch.tensor([tokens, 0, (tokens + 1) // 2]), torch.zeros(3, dtype=torch.int64)]
    for settings in ({}, {"starts": starts}, *({"lengths": each} for each in lengths)):
        fast, slow = (graded(op, cell, leaves, **settings) for op in (recurrent.run, recurrent.reference))
        if "lengths" in settings:  # outputs of padding are anybody's
            real = (torch.arange(tokens) < settings["lengths"][:, None])[..., None]
            fast, slow = ([made[0] * real, *made[1:3]] for made in (fast, slow))
        assert_equal(fast, slow, tolerance=TOLERANCE[dtype])


@quiet_dynamo
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("cell", GATES)
def test_compiled_recurrent_has_the_gradients_of_the_definition(cell):
    leaves = inputs(cell, 20, torch.float64)
    starts = torch.zeros(3, 20, dtype=torch.bool).index_fill(1, torch.tensor([7, 8]), True)
    compiled = torch.compile(recurrent.run, fullgraph=True, backend="aot_eager")
    for settings in ({}, {"starts": starts}):
        fast, slow = (graded(op, cell, leaves, **settings) for op in (compiled, recurrent.reference))
        assert_equal(fast, slow, tolerance=1e-9)


@pytest.mark.parametrize(
    ("cell", "kind", "act"),
    [("rnn_tanh", "RNN", "tanh"), ("rnn_relu", "RNN", "relu"), ("gru", "GRU", None), ("lstm", "LSTM", None)],
)
def test_definition_is_that_of_torch(cell, kind, act):
    leaves = inputs(cell, 30, torch.float64)
    module = getattr(torch.nn, kind)(
        5, 4, batch_first=True, dtype=torch.float64, **({"nonlinearity": act} if act else {})
    )
    module._flat_weights = leaves[1:5]
    hx = leaves[5][None], leaves[6][None]
    theirs, last = module(leaves[0], hx if cell == "lstm" else hx[0])
    made = [theirs, *(t[0] for t in (last if cell == "lstm" else (last, hx[1])))]
    drawn = [noise(*t.shape, seed=9).detach() for t in made]
    told = [*made, *torch.autograd.grad(made, leaves, drawn, materialize_grads=True)]
    assert_equal(graded(recurrent.reference, cell, leaves), told, tolerance=1e-9)
