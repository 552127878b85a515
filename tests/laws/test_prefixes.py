"""Laws of decoders whose first tokens, the prefix, see each other."""

from __future__ import annotations

import pytest
import torch

from groundup.infer.generate import prefill
from groundup.objectives.prefix import PrefixLM
from laws.examples import DECODERS, assert_same, lively, some_ids

PREFIXED = [name for name, spec in DECODERS.items() if spec.prefixed]
every_prefixed = pytest.mark.parametrize("name", PREFIXED)


@every_prefixed
@torch.no_grad()
def test_tokens_of_a_prefix_see_each_other_and_nothing_after_it(name: str) -> None:
    model, ids, prefix = lively(DECODERS[name]), some_ids(2, 9), torch.tensor([4, 6])
    before = model.hidden(ids, prefix=prefix)
    for place in range(9):
        other = ids.clone()
        other[:, place] = (ids[:, place] + 1) % 97
        moved = (model.hidden(other, prefix=prefix) - before).abs().amax(-1) > 1e-9
        for row, length in enumerate(prefix.tolist()):
            first = 0 if place < length else place
            assert moved[row].nonzero()[:, 0].tolist() == list(range(first, 9))


@every_prefixed
@torch.no_grad()
def test_prompts_read_into_a_state_are_prefixes_of_the_whole(name: str) -> None:
    model, ids, lengths = lively(DECODERS[name]), some_ids(2, 9), torch.tensor([4, 6])
    state = model.new_state(2, 9)
    last = prefill(model, state, ids[:, :6], lengths=lengths)
    for row, length in enumerate(lengths.tolist()):
        one = slice(row, row + 1)
        whole = model.hidden(ids[one], prefix=lengths[one])
        assert_same(last[one], whole[:, length - 1])
        mine = state.select(torch.tensor([row]))
        assert_same(model.hidden(ids[one, length:], mine), whole[:, length:])


@every_prefixed
@torch.no_grad()
def test_a_prefix_ends_with_its_document(name: str) -> None:
    model, ids = lively(DECODERS[name]), some_ids(1, 9)
    packing = {"segments": torch.tensor([[0] * 5 + [1] * 4]), "positions": torch.tensor([[*range(5), *range(4)]])}
    first, second = ids.split([5, 4], 1)
    for prefix in (3, 7):
        packed = model.hidden(ids, prefix=torch.tensor([prefix]), **packing)
        assert_same(packed[:, :5], model.hidden(first, prefix=torch.tensor([min(prefix, 5)])))
        assert_same(packed[:, 5:], model.hidden(second, prefix=torch.tensor([max(prefix - 5, 0)])))


@every_prefixed
@torch.no_grad()
def test_without_a_prefix_it_reads_from_left_to_right(name: str) -> None:
    model, ids = lively(DECODERS[name]), some_ids(2, 9)
    assert_same(model.hidden(ids, prefix=torch.tensor([1, 1])), model.hidden(ids))
    assert PrefixLM().misfit(DECODERS[name]) is None
