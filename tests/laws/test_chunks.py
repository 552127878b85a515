"""Law 1: any split of a sequence into pieces, read with a state, gives the logits of the whole."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laws.examples import DECODERS, assert_same, lively, some_ids


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
