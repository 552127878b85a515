"""Law 2: rows are independent; moving them about commutes with reading, and padding and neighbours do not matter."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.errors import GenerationError
from groundup.state import State
from laws.examples import DECODERS, ENCODERS, assert_same, lively, some_ids

pytestmark = pytest.mark.usefixtures("unchecked_signatures")

every_decoder = pytest.mark.parametrize("name", DECODERS)
ROOM = 40


def read(model, ids):
    """Returns a state that has read the ids."""
    state = model.new_state(ids.shape[0], ROOM)
    model(ids, state)
    return state


def continued(model, state, ids, *, after):
    """Whether reading ``ids`` on, in two pieces, gives what the whole sequences do."""
    logits = torch.cat([model(piece, state) for piece in ids.split([1, ids.shape[1] - 1], 1)], 1)
    assert_same(logits, model(torch.cat([after, ids], 1))[:, after.shape[1] :])


@every_decoder
@settings(max_examples=4)
@given(past=st.integers(1, 12), rows=st.lists(st.integers(0, 2), min_size=1, max_size=4))
@torch.no_grad()
def test_select_commutes_with_reading(name, past, rows):
    model, ids, index = lively(DECODERS[name]), some_ids(3, past), torch.tensor(rows)
    continued(model, read(model, ids).select(index), some_ids(len(rows), 4, seed=1), after=ids[index])


@every_decoder
@torch.no_grad()
def test_select_takes_booleans(name):
    model, ids, keep = lively(DECODERS[name]), some_ids(3, 8), torch.tensor([True, False, True])
    continued(model, read(model, ids).select(keep), some_ids(2, 4, seed=1), after=ids[keep])


@every_decoder
@settings(max_examples=3)
@given(past=st.integers(1, 12), times=st.integers(1, 3))
@torch.no_grad()
def test_repeat_commutes_with_reading(name, past, times):
    model, ids = lively(DECODERS[name]), some_ids(2, past)
    after = ids.repeat_interleave(times, 0)
    continued(model, read(model, ids).repeat(times), some_ids(2 * times, 4, seed=1), after=after)


@every_decoder
@settings(max_examples=4)
@given(pasts=st.lists(st.integers(1, 12), min_size=1, max_size=3))
@torch.no_grad()
def test_join_commutes_with_reading(name, pasts):
    model = lively(DECODERS[name])
    texts = [some_ids(1, past, seed=past) for past in pasts]
    state = State.join([read(model, text) for text in texts])
    more = some_ids(len(pasts), 3, seed=1)
    logits = torch.cat([model(more[:, :2], state), model(more[:, 2:], state)], 1)
    for row, text in enumerate(texts):
        assert_same(logits[row], model(torch.cat([text[0], more[row]])[None])[0, -3:])


@every_decoder
@torch.no_grad()
def test_fork_leaves_the_state_alone(name):
    model, ids = lively(DECODERS[name]), some_ids(2, 8)
    state = read(model, ids)
    fork = state.fork()
    model(some_ids(2, 7, seed=2), fork)
    continued(model, state, some_ids(2, 4, seed=1), after=ids)


@every_decoder
@settings(max_examples=8)
@given(steps=st.lists(st.tuples(*[st.integers(0, 9)] * 3).filter(any), min_size=1, max_size=4))
@torch.no_grad()
def test_padding_and_neighbours_do_not_matter(name, steps):
    model = lively(DECODERS[name])
    texts = some_ids(3, sum(max(lengths) for lengths in steps))
    state = model.new_state(3, texts.shape[1])
    found, done = [[], [], []], [0, 0, 0]
    for step, lengths in enumerate(steps):
        ids = some_ids(3, max(lengths), seed=step)  # padding is any token
        for row, length in enumerate(lengths):
            ids[row, :length] = texts[row, done[row] : done[row] + length]
        logits = model(ids, state, lengths=torch.tensor(lengths))
        for row, length in enumerate(lengths):
            found[row].append(logits[row, :length])
            done[row] += length
    assert state.seen.tolist() == done
    for row, length in enumerate(done):
        assert_same(torch.cat(found[row]), model(texts[row : row + 1, : max(length, 1)])[0, :length])


@every_decoder
@torch.no_grad()
def test_padding_leaves_nothing_that_is_not_a_number(name):
    model = lively(DECODERS[name])
    state = model.new_state(2, 12)
    for lengths in ([0, 1], [0, 1], [0, 5], [1, 0], [2, 0]):
        logits = model(some_ids(2, max(lengths)), state, lengths=torch.tensor(lengths))
        assert logits.isfinite().all()
    assert all(t.isfinite().all() for t in state.tensors().values())


@every_decoder
@settings(max_examples=4)
@given(kept=st.tuples(st.integers(0, 9), st.integers(0, 9)))
@torch.no_grad()
def test_rewound_state_reads_on_as_if_it_had_not_read(name, kept):
    model, ids, more = lively(DECODERS[name]), some_ids(2, 9), some_ids(2, 4, seed=1)
    state = read(model, ids)
    if not state.rewinds:
        with pytest.raises(GenerationError, match="cannot rewind"):
            state.rewind(torch.tensor(kept))
        continued(model, state, more, after=ids)
        return
    state.rewind(torch.tensor(kept))
    logits = model(more, state)
    for row, length in enumerate(kept):
        assert_same(logits[row], model(torch.cat([ids[row, :length], more[row]])[None])[0, -4:])


@every_decoder
@torch.no_grad()
def test_rewinding_gives_back_the_room(name):
    model = lively(DECODERS[name])
    state = model.new_state(1, 6)
    for _ in range(4 if state.rewinds else 0):
        model(some_ids(1, 5), state)
        state.rewind(torch.tensor([1]))
    assert state.reach == (1 if state.rewinds else 0)


@every_decoder
@torch.no_grad()
def test_rows_that_leave_give_back_their_room(name):
    model, old, young = lively(DECODERS[name]), some_ids(1, 20), some_ids(1, 2, seed=1)
    states = [model.new_state(1, 20) for _ in range(2)]
    for ids, state in zip((old, young), states, strict=True):
        model(ids, state)
    continued(model, State.join(states).select(torch.tensor([1])), some_ids(1, 18, seed=2), after=young)


@every_decoder
@torch.no_grad()
def test_saved_state_reads_on_bitwise(name, tmp_path):
    model, ids, more = lively(DECODERS[name]), some_ids(2, 8), some_ids(2, 4, seed=1)
    state = read(model, ids)
    state.save(tmp_path / "state.safetensors")
    loaded = model.new_state(2, ROOM).load(tmp_path / "state.safetensors")
    assert torch.equal(model(more, loaded), model(more, state))
    assert loaded.seen.tolist() == [12, 12]


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_padding_and_neighbours_do_not_matter_to_an_encoder(name):
    model, ids = lively(ENCODERS[name]), some_ids(3, 12)
    read = model(ids, lengths=torch.tensor([12, 1, 7]))
    for row, length in enumerate((12, 1, 7)):
        assert_same(read[row, :length], model(ids[row : row + 1, :length])[0])
