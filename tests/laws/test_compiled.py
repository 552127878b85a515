"""Law 7, first half: a compiled model is one graph, equals the eager one, and is not compiled again at every token.

Compiling takes a second, and the graphs of models of the same parts are alike: those that bring a part which none
before them has are fast tests, all others slow ones.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import pytest
import torch

from groundup.errors import GenerationError
from groundup.specs import Spec, walk
from laws.examples import EXAMPLES, READERS, STACKS, assert_same, lively, some_ids


def _bring_a_part(names: Iterable[str]) -> set[str]:
    """Returns the names of the examples that have a kind of part which no example before them has."""
    met: set[type[Spec]] = set()
    bringing = set()
    for name in names:
        kinds = {type(part) for _, part in walk(EXAMPLES[name])}
        if not kinds <= met:
            bringing.add(name)
        met |= kinds
    return bringing


def _each(names: Collection[str]) -> pytest.MarkDecorator:
    quick = _bring_a_part(names)
    marked = [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]
    return pytest.mark.parametrize("name", marked)


every_example, every_decoder = _each(STACKS), _each(READERS)

# What inductor's own modules say when they are imported.
quiet_inductor = pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")

pytestmark = [
    pytest.mark.usefixtures("unchecked_signatures", "fresh_compiler"),
    # What dynamo does itself while it traces the backward that an operation brings along.
    pytest.mark.filterwarnings("ignore:.* should not be instantiated:DeprecationWarning"),
]


def compiled(model, *, backend):
    return torch.compile(model, fullgraph=True, backend=backend)


def equal_up_to_sines(actual, expected):
    """The tolerance of float32: rotations are computed in it, and inductor has sines of its own."""
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def decodes_like_the_whole(model, *, backend, equal=assert_same, past=6, tokens=8):
    """Whether a prompt and its tokens, one by one, give the whole's logits, in one graph compiled at the first."""
    ids = some_ids(2, past + tokens)
    whole, state, step = model(ids), model.new_state(2, past + tokens), compiled(model, backend=backend)
    model(ids[:, :past], state)
    for place in range(past, past + tokens):
        with torch._dynamo.config.patch(error_on_recompile=place > past):
            equal(step(ids[:, place : place + 1], state), whole[:, place : place + 1])


@every_example
def test_compiled_whole_sequence_equals_eager(name):
    model, ids = lively(EXAMPLES[name]), some_ids(2, 12)
    with torch.no_grad():
        assert_same(compiled(model, backend="aot_eager")(ids), model(ids))


@every_decoder
def test_compiled_decode_steps_equal_the_whole_without_compiling_again(name):
    decodes_like_the_whole(lively(EXAMPLES[name]), backend="aot_eager")


@torch.no_grad()
def test_state_of_compiled_steps_is_read_on_eagerly():
    model, ids = lively(EXAMPLES["sandwich"]), some_ids(2, 12)
    state, step = model.new_state(2, 12), compiled(model, backend="eager")
    pieces = [step(ids[:, :3], state), model(ids[:, 3:5], state), step(ids[:, 5:8], state), model(ids[:, 8:], state)]
    assert_same(torch.cat(pieces, 1), model(ids))
    with pytest.raises(GenerationError, match="room for 12 tokens and 13"):
        model(ids[:, :1], state)


@pytest.mark.slow
@quiet_inductor
@pytest.mark.parametrize("name", ["parallel", "odd heads"])
def test_inductor_equals_eager(name):
    model, ids = lively(EXAMPLES[name]), some_ids(2, 12)
    with torch.no_grad():
        equal_up_to_sines(compiled(model, backend="inductor")(ids), model(ids))
    decodes_like_the_whole(model, backend="inductor", equal=equal_up_to_sines)


@pytest.mark.slow
@quiet_inductor
def test_compiled_gradients_equal_eager():
    model, ids = lively(EXAMPLES["parallel"]), some_ids(2, 12)
    weights = list(model.parameters())
    eager = torch.autograd.grad(model(ids).square().mean(), weights)
    fast = torch.autograd.grad(compiled(model, backend="inductor")(ids).square().mean(), weights)
    for one, two in zip(fast, eager, strict=True):
        equal_up_to_sines(one, two)
