"""Law 1: any split of a sequence into pieces, read with a state, gives the logits of the whole.

Where the length of a text decides how all of it is read, the pieces of a short one do, and those of a long one whose
first piece is long.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laws.examples import BROKEN, DECODERS, assert_same, lively, some_ids


@pytest.mark.parametrize("name", DECODERS)
@settings(max_examples=6)
@given(pieces=st.lists(st.integers(1, 13), min_size=2, max_size=5), spare=st.integers(0, 3))
@torch.no_grad()
def test_pieces_give_the_logits_of_the_whole(name, pieces, spare):
    model, ids = lively(DECODERS[name]), some_ids(2, sum(pieces))
    state = model.new_state(2, sum(pieces) + spare)
    assert_same(torch.cat([model(piece, state) for piece in ids.split(pieces, 1)], 1), model(ids))


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_token_by_token_gives_the_logits_of_the_whole(name):
    model, ids = lively(DECODERS[name]), some_ids(2, 14)
    state = model.new_state(2, 14)
    assert_same(torch.cat([model(token, state) for token in ids.split(1, 1)], 1), model(ids))


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_state_of_another_precision_is_read(name):
    model, ids = lively(DECODERS[name]), some_ids(2, 12)
    state = model.new_state(2, 12, dtype=torch.float32)
    pieces = torch.cat([model(piece, state) for piece in ids.split([7, 1, 4], 1)], 1)
    torch.testing.assert_close(pieces, model(ids), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", BROKEN)
@settings(max_examples=6)
@given(more=st.lists(st.integers(1, 13), min_size=1, max_size=4), spare=st.integers(0, 3))
@torch.no_grad()
def test_pieces_of_a_long_text_give_the_logits_of_the_whole_if_the_first_is_long(name, more, spare):
    pieces = [max(BROKEN[name].breaks) + 1 + spare, *more]
    model, ids = lively(BROKEN[name]), some_ids(2, sum(pieces))
    state = model.new_state(2, sum(pieces) + spare)
    assert_same(torch.cat([model(piece, state) for piece in ids.split(pieces, 1)], 1), model(ids))


@pytest.mark.parametrize("name", BROKEN)
@torch.no_grad()
def test_pieces_of_a_short_text_give_the_logits_of_the_whole(name):
    model, length = lively(BROKEN[name]), min(BROKEN[name].breaks)
    ids = some_ids(2, length + 1)
    state = model.new_state(2, length + 1)
    assert_same(torch.cat([model(id, state) for id in ids[:, :-1].split(1, 1)], 1), model(ids[:, :-1]))
    assert (model(ids[:, -1:], state)[:, 0] - model(ids)[:, -1]).abs().max() > 1e-6


@pytest.mark.parametrize("name", BROKEN)
@torch.no_grad()
def test_neighbours_and_padding_do_not_change_the_length_of_a_row(name):
    model, length = lively(BROKEN[name]), min(BROKEN[name].breaks)
    lengths = [length, length + 2, 1]
    ids = some_ids(3, length + 2)
    state = model.new_state(3, length + 3)
    found = model(ids, state, lengths=torch.tensor(lengths))
    for row, real in enumerate(lengths):
        assert_same(found[row, :real], model(ids[row : row + 1, :real])[0])
    more = model(some_ids(3, 1, seed=1), state)[1]
    assert_same(more, model(torch.cat([ids[1], some_ids(3, 1, seed=1)[1]])[None])[0, -1:])
