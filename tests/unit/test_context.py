from __future__ import annotations

import pytest
import torch

from groundup.context import NOT_COUNTED, Batch, Context
from groundup.parts.mask import Causal, Window


def test_whole_sequences_have_places_in_order():
    ctx = Context.whole(torch.zeros(2, 3, dtype=torch.int64))
    assert ctx.positions.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert (ctx.seen, ctx.segments, ctx.reach) == (None, None, 3)


def test_given_places_are_kept_and_their_reach_is_not_known():
    given = torch.tensor([[0, 1, 0]])
    ctx = Context.whole(given, positions=given, segments=torch.tensor([[0, 0, 1]]))
    assert ctx.positions is given
    assert ctx.reach == 0


def test_places_go_on_after_what_each_row_has_seen():
    ctx = Context.after(torch.tensor([0, 5]), 3, reach=8, lengths=torch.tensor([3, 1]))
    assert ctx.positions.tolist() == [[0, 1, 2], [5, 6, 7]]
    assert ctx.reach == 8


def test_shared_values_are_made_once():
    ctx = Context.whole(torch.zeros(1, 1))
    first = ctx.once("key", lambda: torch.tensor(1.0))
    assert ctx.once("key", lambda: torch.tensor(2.0)) is first
    assert ctx.once("other", lambda: torch.tensor(2.0)).item() == 2.0
    assert not Context.whole(torch.zeros(1, 1)).shared


def test_causal_rows_of_one_document_need_no_mask():
    assert Causal().within(Context.whole(torch.zeros(2, 3))) is None


def test_window_has_one_mask_for_all_rows():
    mask = Window(2).within(Context.whole(torch.zeros(3, 4)))
    assert mask is not None
    assert mask.shape == (3, 1, 4, 4)
    assert mask.untyped_storage().nbytes() == 16
    assert mask[2, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]


def test_documents_of_a_row_do_not_see_each_other():
    ids, segments = torch.zeros(1, 4, dtype=torch.int64), torch.tensor([[7, 7, 2, 2]])
    for positions in (None, torch.tensor([[0, 1, 0, 1]])):
        mask = Causal().within(Context.whole(ids, segments=segments, positions=positions))
        assert mask is not None
        assert mask[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]


def test_batch_counts_the_targets_that_count():
    ids = torch.tensor([[1, 2, 3]])
    batch = Batch(ids=ids, targets=torch.tensor([[2, NOT_COUNTED, NOT_COUNTED]]), segments=ids)
    assert batch.counted_tokens == 1
    moved = batch.to("meta")
    assert moved.ids.is_meta and moved.targets.is_meta and moved.segments is not None and moved.segments.is_meta
    assert moved.positions is None


@pytest.mark.parametrize("places", ["anew", "on"])
def test_each_text_of_a_packed_row_has_its_own_length(places: str):
    segments = torch.tensor([[0, 0, 0, 1, 1, 2]])
    positions = torch.tensor([[0, 1, 2, 0, 1, 0]]) if places == "anew" else None
    ctx = Context.whole(segments, segments=segments, positions=positions)
    assert ctx.text_lengths.tolist() == [[3, 3, 3, 2, 2, 1]]


def test_padding_has_no_part_in_the_length_of_a_row():
    assert Context.whole(torch.zeros(2, 5), lengths=torch.tensor([2, 5])).text_lengths.tolist() == [[2], [5]]
