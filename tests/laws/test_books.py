"""Law 5: what parts say about themselves is what is built, run and held: parameters, operations and bytes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from groundup.mixers.base import Mixer
from groundup.parts.linear import Counted
from groundup.parts.tie import used
from groundup.planner import books
from laws.examples import DECODERS, EXAMPLES, STACKS, lively, some_ids

pytestmark = pytest.mark.usefixtures("unchecked_signatures")

# The books take every backward for two forwards. In these, shrunk, the counted one is 1 to 8 % off; why is not looked
# into yet.
BACKWARD_IS_NOT_TWO_FORWARDS = {
    "gla-1.3b",
    "gla-340m",
    "linear attention",
    "linear-transformer-mnist",
    "lstm-zaremba-small",
    "performer-regular",
    "retnet-1.3b",
    "reversible",
    "rotations by length",
    "rwkv, matrices",
    "rwkv-5-0.4b",
    "rwkv-7-0.1b",
    "s4-224m",
    "s4d-inv-222m",
    "s4d-lin-222m",
    "state spaces",
}

every_example = pytest.mark.parametrize("name", STACKS)
every_decoder = pytest.mark.parametrize("name", DECODERS)


def said_flops(model: nn.Module, *, rows: int, tokens: int, seen: int) -> int:
    """Returns the forward's operations as the parts tell them; a pool's come once a text, not once a token."""
    parts = [part for name, child in model.named_children() if name != "pool" for part in used(child)]
    maps = sum(part.flops_per_token for part in parts if isinstance(part, Counted))
    return rows * (tokens * maps + sum(part.mix_flops(tokens, seen) for part in parts if isinstance(part, Mixer)))


def counted_flops(model: nn.Module, *args: object) -> int:
    """Returns the forward's operations as PyTorch counts them, matrix product by matrix product."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(*args)
    return counter.get_total_flops()


@every_example
@pytest.mark.parametrize("tokens", [1, 13])
def test_said_flops_of_a_whole_sequence_are_counted(name, tokens):
    model = lively(EXAMPLES[name])
    assert said_flops(model, rows=2, tokens=tokens, seen=tokens) == counted_flops(model, some_ids(2, tokens))


@every_decoder
@pytest.mark.parametrize("past", [4, 11])  # with the next token, all windows are full: a ring is always read whole
@torch.no_grad()
def test_said_flops_of_the_next_token_are_counted(name, past):
    model = lively(EXAMPLES[name])
    state = model.new_state(2, 20)
    model(some_ids(2, past), state)
    said = said_flops(model, rows=2, tokens=1, seen=past + 1)
    assert said == counted_flops(model, some_ids(2, 1), state)


@every_example
def test_planned_figures_are_the_built_models(name):
    spec, model = EXAMPLES[name], lively(EXAMPLES[name])
    assert books.params(spec) == sum(p.numel() for p in model.parameters())
    counted = counted_flops(model, some_ids(1, 13)) / 13  # of layers together: thirteenths, summed in another order
    assert books.forward_flops_per_token(spec, context=13) == pytest.approx(counted, rel=1e-12)


@every_example
def test_planned_training_operations_are_counted(name):
    spec, model = EXAMPLES[name], lively(EXAMPLES[name])
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        out = model(some_ids(1, 13))
        out.sum().backward()
    off = abs(books.train_flops_per_token(spec, context=13) * 13 / counter.get_total_flops() - 1)
    assert 0.01 < off < 0.08 if name in BACKWARD_IS_NOT_TWO_FORWARDS else off <= 0.01


@every_decoder
def test_planned_state_is_the_one_that_is_made(name):
    state = lively(DECODERS[name]).new_state(2, 20)
    planned = books.state_bytes(DECODERS[name], rows=2, max_len=20, dtype=torch.float64)
    assert planned == state.nbytes - state.seen.nbytes


@every_example
def test_parameters_on_the_meta_device_are_real(name):
    model = EXAMPLES[name].build()
    with torch.device("meta"):
        planned = EXAMPLES[name].build()
    sizes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    assert {key: tensor.shape for key, tensor in planned.state_dict().items()} == sizes
    assert all(p.is_meta for p in planned.parameters())


@every_decoder
def test_state_bytes_on_the_meta_device_are_real(name):
    model = DECODERS[name].build()
    with torch.device("meta"):
        planned = DECODERS[name].build()
    for rows, max_len, dtype in ((1, 3, None), (3, 40, torch.bfloat16)):
        state = model.new_state(rows, max_len, dtype=dtype)
        assert planned.new_state(rows, max_len, dtype=dtype).nbytes == state.nbytes
        assert state.nbytes == sum(t.untyped_storage().nbytes() for t in state.tensors().values())
