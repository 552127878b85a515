"""Law 5: what parts say about themselves is what is built, run and held: parameters, operations and bytes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from groundup.mixers.base import Mixer
from groundup.mixers.hashed import HashedMixer
from groundup.mixers.mlp import ChunkedMLPMixer, MLPMixer
from groundup.model.decoder import DecoderModel
from groundup.model.reversible import ReversibleDecoderModel
from groundup.objectives.objective import Shape
from groundup.parts.linear import Counted
from groundup.parts.tie import used
from groundup.planner import books
from laws.examples import DECODERS, EXAMPLES, STACKS, lively, read, some_ids

pytestmark = pytest.mark.usefixtures("unchecked_signatures")

# What PyTorch counts in 13 tokens over what the books hold, where a backward computes something once more.
WITH_MADE_AGAIN = {"reversible": 1.2424, "reformer-enwik8": 1.2702, "reformer-crime-and-punishment": 1.2374}

# Mixers whose backward is not two forwards, which depends on how many chunks a text has.
IN_CHUNKS = ("hashed", "recurrent", "linear attention", "delta rule", "state spaces", "rwkv, matrices")

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


def trained_flops(name: str, *, tokens: int) -> int:
    """Returns the operations of a forward and its backward of a row as PyTorch counts them.

    In float64, in which an LSTM is products that it counts; oneDNN's kernel for float32 it does not.
    """
    model = lively(EXAMPLES[name])
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        read(model, some_ids(1, tokens)).sum().backward()
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


@pytest.fixture
def nothing_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers and MLPs keep what they compute for their backward, with the same results."""
    monkeypatch.setattr(ReversibleDecoderModel, "through", DecoderModel.through)
    monkeypatch.setattr(ChunkedMLPMixer, "forward", MLPMixer.forward)


def assert_books_hold(name: str, *, tokens: int) -> None:
    """Fails unless the books hold the operations of a forward and a backward to the unit: not 1% off, but 0."""
    planned, counted = books.train_flops(EXAMPLES[name], Shape.even(tokens)), trained_flops(name, tokens=tokens)
    assert planned == counted, f"{planned:,} operations planned, {counted:,} counted: {planned / counted - 1:+.2%}"


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.usefixtures("nothing_is_made_again")
def test_planned_training_operations_are_counted(name):
    assert_books_hold(name, tokens=13)


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_CHUNKS)
@pytest.mark.parametrize("tokens", [1, 40, 130])  # 130 are three of the longest chunks of any
def test_planned_training_operations_are_counted_in_any_number_of_chunks(name, tokens):
    assert_books_hold(name, tokens=tokens)


@pytest.mark.parametrize("name", WITH_MADE_AGAIN)
def test_what_a_backward_computes_once_more_is_counted_by_pytorch_alone(name):
    """Reversible layers make their forward again, but for buckets, which are kept; MLPs in chunks their first map."""
    spec, parts = EXAMPLES[name], list(lively(EXAMPLES[name]).modules())
    planned, counted = books.train_flops(spec, Shape.even(13)), trained_flops(name, tokens=13)
    mapped = sum(13 * part.up.flops_per_token for part in parts if isinstance(part, ChunkedMLPMixer))
    hashed = [part for part in parts if isinstance(part, HashedMixer)]
    kept = sum(part.mix_flops(13, 13) - part.mix_backward_flops(13, 13) // 2 for part in hashed)
    assert counted == planned + books.again_flops(spec, Shape.even(13)) + mapped - kept
    assert counted / planned == pytest.approx(WITH_MADE_AGAIN[name], abs=5e-5)


def test_no_other_example_has_layers_that_compute_once_more():
    again = {name for name, spec in EXAMPLES.items() if books.again_flops(spec, Shape.even(13))}
    assert again == set(WITH_MADE_AGAIN)


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
