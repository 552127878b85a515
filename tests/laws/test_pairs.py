"""The laws for encoder-decoders: targets in pieces, rows that do not see each other, books, gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from groundup.errors import GenerationError
from groundup.planner import books
from laws.examples import HAND_MADE, PAIRS, assert_same, lively, some_ids

every_pair = pytest.mark.parametrize("name", PAIRS)


@every_pair
@settings(max_examples=6)
@given(pieces=st.lists(st.integers(1, 9), min_size=2, max_size=5), source=st.integers(1, 12))
@torch.no_grad()
def test_pieces_give_the_logits_of_the_whole(name, pieces, source):
    model, ids, read = lively(PAIRS[name]), some_ids(2, sum(pieces)), some_ids(2, source, seed=1)
    state = model.new_state(read, sum(pieces))
    assert_same(torch.cat([model(piece, state) for piece in ids.split(pieces, 1)], 1), model(ids, source=read))


@every_pair
@torch.no_grad()
def test_padding_of_sources_and_neighbours_do_not_matter(name):
    model, ids, read = lively(PAIRS[name]), some_ids(3, 6), some_ids(3, 9, seed=1)
    lengths = torch.tensor([9, 1, 4])
    whole = model(ids, source=read, source_lengths=lengths)
    later = model(ids, model.new_state(read, 6, lengths=lengths))
    for row, length in enumerate(lengths.tolist()):
        alone = model(ids[row : row + 1], source=read[row : row + 1, :length])[0]
        assert_same(whole[row], alone)
        assert_same(later[row], alone)


@every_pair
@torch.no_grad()
def test_rows_of_the_state_are_moved_about(name):
    model, read, index = lively(PAIRS[name]), some_ids(3, 5, seed=1), torch.tensor([2, 0, 2])
    first, more = some_ids(3, 4), some_ids(3, 3, seed=2)
    state = model.new_state(read, 8)
    model(first, state)
    whole = model(torch.cat([first[index], more], 1), source=read[index])
    assert_same(model(more, state.select(index)), whole[:, 4:])


@every_pair
@torch.no_grad()
def test_the_target_sees_nothing_that_comes_after_and_all_of_the_source(name):
    model, ids, read = lively(PAIRS[name]), some_ids(1, 7), some_ids(1, 5, seed=1)
    other, told = ids.clone(), read.clone()
    other[:, 4] = (ids[:, 4] + 1) % 97
    told[:, 4] = (read[:, 4] + 1) % 97
    before = model(ids, source=read)
    assert_same(model(other, source=read)[:, :4], before[:, :4])
    assert (model(ids, source=told)[:, 0] - before[:, 0]).abs().max() > 1e-6


@every_pair
def test_planned_figures_are_the_built_models(name):
    spec, model, ids = PAIRS[name], lively(PAIRS[name]), some_ids(1, 13)
    assert books.params(spec) == sum(p.numel() for p in model.parameters())
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(ids, source=ids)
    assert books.forward_flops_per_token(spec, context=13) == counter.get_total_flops() / 13


@every_pair
@torch.no_grad()
def test_planned_state_is_the_decoders_without_what_it_keeps_of_the_source(name):
    state = lively(PAIRS[name]).new_state(some_ids(2, 5), 20)
    own = sum(t.nbytes for path, t in state.tensors().items() if ".cross." not in path) - state.seen.nbytes
    assert books.state_bytes(PAIRS[name], rows=2, max_len=20, dtype=torch.float64) == own
    assert books.tree(PAIRS[name], context=20, dtype=torch.float64).state_bytes == own / 2


@every_pair
def test_a_step_of_training_lowers_the_loss_and_reaches_every_parameter(name):
    model, ids = copy.deepcopy(lively(PAIRS[name])).train(), some_ids(2, 9)

    def loss():
        return F.cross_entropy(model(ids[:, :-1], source=ids).flatten(0, 1), ids[:, 1:].flatten())

    before = loss()
    before.backward()
    slopes = [p.grad.square().sum().item() for p in model.parameters() if p.grad is not None]
    assert len(slopes) == len(list(model.parameters()))
    torch.optim.SGD(model.parameters(), lr=1e-5).step()
    assert (before - loss()).item() == pytest.approx(1e-5 * sum(slopes), rel=0.1)


@pytest.mark.parametrize(
    "name", [name if name in HAND_MADE else pytest.param(name, marks=pytest.mark.slow) for name in PAIRS]
)
@pytest.mark.usefixtures("fresh_compiler")
@torch.no_grad()
def test_compiled_whole_equals_eager(name):
    model, ids = lively(PAIRS[name]), some_ids(2, 8)
    whole = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert_same(whole(ids, source=ids), model(ids, source=ids))


@every_pair
def test_one_of_source_and_state_is_needed(name):
    model, ids = lively(PAIRS[name]), some_ids(1, 3)
    with pytest.raises(GenerationError, match="reads a source, or goes on from the state"):
        model(ids)
