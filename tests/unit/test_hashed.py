"""Attention to what hashes alike: by hand, read on with a state, and its cost."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from groundup.context import Context
from groundup.errors import GenerationError
from groundup.mixers.hashed import HashedAttention
from groundup.model.decoder import Decoder
from groundup.model.layer import Layer
from groundup.model.residual import Residual
from groundup.ops import hashed_attention
from groundup.parts.embed import Embed
from groundup.parts.position import Axial
from groundup.planner import books
from groundup.state import State
from laws.examples import lively

SPEC = HashedAttention(heads=2, head_width=4, factors=(4,), rounds=2, chunk=4)
MODEL = Decoder(width=8, vocab=30, context=64, layers=(Layer(mix=Residual(SPEC)),) * 2)


def ids(rows: int, tokens: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(30, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def test_a_bucket_is_the_nearest_of_the_directions_and_their_opposites():
    turns = torch.eye(2)[None, :, None]  # right, up; their opposites are left, down
    q = torch.tensor([[2.0, 1.0], [0.0, 3.0], [-5.0, 4.0], [1.0, -2.0]])[None, None]
    assert hashed_attention.buckets(q, turns, (4,)).flatten().tolist() == [0, 1, 2, 3]
    assert hashed_attention.buckets(q, turns, (2, 2)).flatten().tolist() == [0, 0, 1, 2]


def test_tokens_of_one_bucket_see_those_before_them_and_not_themselves():
    q = torch.tensor([1.0, 1.0, -1.0, 1.0])[None, None, :, None]
    v = torch.tensor([1.0, 10.0, 100.0, 1000.0])[None, None, :, None]
    bucket = torch.tensor([0, 0, 1, 0])[None, None, :, None]
    for op in (hashed_attention.attend, hashed_attention.reference):
        # Sorted: 0, 1 | 3, 2. The first sees itself alone, 1 sees 0; 3 and 2 are in a chunk, and 3 comes after 2.
        y = op(q, v, bucket, chunk=2, before=0, real=4).flatten()
        torch.testing.assert_close(y, torch.tensor([1.0, 1.0, 100.0, 100.0]))


@torch.no_grad()
def test_short_texts_are_read_whole():
    made = lively(MODEL).layers[0].part("mix").mixer
    x = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    other = x.clone()
    other[0, 3] += 1.0
    one, two = made(x, Context.whole(x)), made(other, Context.whole(x))
    torch.testing.assert_close(one[:, :3], two[:, :3])


@pytest.mark.parametrize("prompt", [1, 3, 6, 13])
@torch.no_grad()
def test_a_prompt_read_at_once_is_as_without_a_state_and_what_follows_does_not_depend_on_its_pieces(prompt: int):
    model, text = lively(MODEL), ids(2, 20)
    state = model.new_state(2, 24)
    torch.testing.assert_close(model(text[:, :prompt], state), model(text[:, :prompt]))
    other = state.fork()
    at_once = model(text[:, prompt:], state)
    singly = torch.cat([model(token, other) for token in text[:, prompt:].split(1, 1)], 1)
    torch.testing.assert_close(at_once, singly)


@torch.no_grad()
def test_rows_of_the_state_are_moved_about():
    model, text, more = lively(MODEL), ids(3, 11), ids(3, 4, seed=1)
    state = model.new_state(3, 20)
    model(text, state, lengths=torch.tensor([11, 6, 2]))
    alone = []
    for row, length in enumerate((11, 6, 2)):
        single = model.new_state(1, 20)
        model(text[row : row + 1, :length], single)
        alone.append(single)
    for moved, rows in ((state.select(torch.tensor([2, 0])), [2, 0]), (State.join(alone), [0, 1, 2])):
        found = torch.cat([model(token, moved) for token in more[rows].split(1, 1)], 1)
        for i, row in enumerate(rows):
            single = alone[row].fork()
            told = torch.cat([model(token, single) for token in more[row : row + 1].split(1, 1)], 1)
            torch.testing.assert_close(found[i : i + 1], told)


@torch.no_grad()
def test_a_state_does_not_rewind_for_a_prompt_is_not_a_sum_of_its_pieces():
    model, text = lively(MODEL), ids(1, 13)
    assert not MODEL.layers[0].parts["mix"].mixer.steady
    assert (model(text)[:, :9] - model(text[:, :9])).abs().max() > 1e-3
    state = model.new_state(1, 20)
    model(text, state)
    with pytest.raises(GenerationError, match="cannot rewind"):
        state.rewind(torch.tensor([9]))


def test_planned_operations_and_bytes_are_those_that_are_counted():
    model = lively(MODEL)
    mixer = model.layers[0].part("mix").mixer
    state = model.new_state(1, 40)
    assert books.state_bytes(MODEL, rows=1, max_len=40, dtype=torch.float64) == state.nbytes - state.seen.nbytes
    for tokens, seen, given in ((3, 3, None), (21, 21, None), (1, 22, state)):
        if given is not None:
            model(ids(1, 21), given)
        maps = 2 * tokens * (2 * 3 * 8 * 8 + 30 * 8)
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            model(ids(1, tokens), given)
        assert counter.get_total_flops() == maps + 2 * mixer.mix_flops(tokens, seen)


def test_operations_grow_with_the_length_of_the_text():
    mixer = SPEC.build(8)
    assert mixer.mix_flops(40_000, 40_000) == 10 * mixer.mix_flops(4000, 4000)


def test_a_text_beyond_the_table_of_axial_places_is_refused():
    spec = MODEL.replace(context=10, embed=Embed(position=Axial(shape=(2, 5), widths=(3, 5))))
    with pytest.raises(GenerationError, match="11 tokens long and the model has 10 places"):
        spec.build()(ids(1, 11))
