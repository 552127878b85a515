"""Law 3: nothing is known before it is read, and packed documents never see each other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laws.examples import EXAMPLES, READERS, STACKS, assert_same, lively, some_ids

every_example = pytest.mark.parametrize("name", STACKS)
every_decoder = pytest.mark.parametrize("name", READERS)


@every_decoder
@settings(max_examples=5)
@given(tokens=st.integers(1, 20), place=st.integers(0, 19))
@torch.no_grad()
def test_changed_token_changes_nothing_before_it(name, tokens, place):
    model, place = lively(EXAMPLES[name]), place % tokens
    ids = some_ids(1, tokens)
    other = ids.clone()
    other[:, place] = (ids[:, place] + 1) % 97
    one, two = model(ids), model(other)
    assert_same(one[:, :place], two[:, :place])
    assert (one[:, place] - two[:, place]).abs().max() > 1e-6


@every_example
@settings(max_examples=5)
@given(lengths=st.lists(st.integers(1, 11), min_size=1, max_size=5))
@torch.no_grad()
def test_packed_row_equals_its_documents_read_alone(name, lengths):
    model, ids = lively(EXAMPLES[name]), some_ids(2, sum(lengths))
    segments = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)).expand(2, -1)
    positions = torch.cat([torch.arange(length) for length in lengths]).expand(2, -1)
    packed = model(ids, segments=segments, positions=positions)
    assert_same(packed, torch.cat([model(document) for document in ids.split(lengths, 1)], 1))


@every_example
@torch.no_grad()
def test_rows_may_be_packed_differently(name):
    model, ids = lively(EXAMPLES[name]), some_ids(2, 10)
    segments = torch.tensor([[0] * 4 + [1] * 6, [3] * 10])
    positions = torch.stack([torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 4, 5]), torch.arange(10)])
    packed = model(ids, segments=segments, positions=positions)
    assert_same(packed[0, 4:], model(ids[:1, 4:])[0])
    assert_same(packed[1], model(ids[1:])[0])


@every_decoder
@torch.no_grad()
def test_places_that_start_anew_without_segments_do_not_show_the_future(name):
    model, ids = lively(EXAMPLES[name]), some_ids(1, 8)
    other, positions = ids.clone(), torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]])
    other[:, 4:] = (ids[:, 4:] + 1) % 97
    assert_same(model(ids, positions=positions)[:, :4], model(other, positions=positions)[:, :4])
