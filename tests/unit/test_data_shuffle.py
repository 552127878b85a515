from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from groundup.data.shuffle import shuffled


def order(size: int, *key: int) -> list[int]:
    return shuffled(np.arange(size), size=size, key=key).tolist()


@given(size=st.integers(1, 700), key=st.tuples(st.integers(0, 2**64), st.integers(0, 9)))
def test_every_place_is_taken_once(size: int, key: tuple[int, int]) -> None:
    assert sorted(order(size, *key)) == list(range(size))


@given(size=st.integers(1, 2**40), data=st.data())
def test_a_place_does_not_depend_on_what_else_is_asked(size: int, data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=8))
    together = shuffled(np.array(places), size=size, key=(1,))
    assert together.tolist() == [int(shuffled(np.array([p]), size=size, key=(1,))[0]) for p in places]
    assert all(0 <= place < size for place in together.tolist())


def test_keys_give_other_orders() -> None:
    orders = {tuple(order(50, seed, epoch)) for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100


def test_the_order_looks_random() -> None:
    size = 4000
    shuffled_places = np.array(order(size, 3))
    assert abs(np.corrcoef(np.arange(size), shuffled_places)[0, 1]) < 0.05
    assert abs(np.corrcoef(shuffled_places[:-1], shuffled_places[1:])[0, 1]) < 0.05
    # In a random order one number is followed by its successor about once.
    assert (np.diff(shuffled_places) == 1).sum() < 8


def test_small_sizes_see_every_order() -> None:
    assert len({tuple(order(4, seed)) for seed in range(500)}) == 24
