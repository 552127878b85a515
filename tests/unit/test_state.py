"""Operations on states, written once for every shape of state."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from groundup.errors import GenerationError, StorageError
from groundup.mixers.kv import KVState, WindowState
from groundup.state import State


@dataclass
class Inner(State):
    tail: Tensor

    def rewind(self, length: Tensor) -> None:
        self.tail.zero_()


@dataclass
class Outer(State):
    """A state with everything that a state may hold."""

    seen: Tensor
    parts: tuple[dict[str, State], ...]
    reach: int


def outer(*rows: int, reach: int = 3) -> Outer:
    seen = torch.tensor(rows)
    return Outer(seen=seen, parts=({"mix": Inner(tail=seen[:, None] * 10), "ffn": State()},), reach=reach)


def tail(state: Outer) -> Tensor:
    return state.tensors()["parts.0.mix.tail"]


def kv(kind, *, rows: int = 1, slots: int = 3):
    return kind(k=torch.zeros(rows, 1, slots, 2), v=torch.zeros(rows, 1, slots, 2))


def test_tensors_have_dotted_names():
    assert list(outer(1, 2).tensors()) == ["seen", "parts.0.mix.tail"]
    assert State().tensors() == {}


def test_select_takes_rows_in_the_given_order():
    state = outer(1, 2, 3)
    assert state.select(torch.tensor([2, 0, 2])).seen.tolist() == [3, 1, 3]
    assert tail(state.select(torch.tensor([False, True, True]))).tolist() == [[20], [30]]
    assert state.seen.tolist() == [1, 2, 3]


def test_repeat_puts_copies_beside_each_other():
    state = outer(1, 2).repeat(2)
    assert state.seen.tolist() == [1, 1, 2, 2]
    assert tail(state).tolist() == [[10], [10], [20], [20]]
    assert state.reach == 3


def test_fork_shares_no_memory():
    state = outer(1)
    fork = state.fork()
    fork.seen.add_(5)
    tail(fork).zero_()
    assert state.seen.tolist() == [1]
    assert tail(state).tolist() == [[10]]


def test_join_keeps_the_order_and_the_largest_number():
    state = State.join([outer(1, reach=9), outer(2, 3, reach=4)])
    assert isinstance(state, Outer)
    assert state.seen.tolist() == [1, 2, 3]
    assert tail(state).tolist() == [[10], [20], [30]]
    assert state.reach == 9


def test_states_of_different_lengths_are_not_joined():
    with pytest.raises(GenerationError, match="same max_len"):
        State.join([kv(KVState, slots=3), kv(KVState, slots=4)])


def test_nbytes_counts_every_tensor():
    assert outer(1, 2).nbytes == 2 * 8 + 2 * 8
    assert kv(KVState, rows=2, slots=5).nbytes == 2 * (2 * 1 * 5 * 2) * 4
    assert State().nbytes == 0


def test_state_rewinds_where_all_its_parts_do():
    assert outer(1).rewinds
    assert kv(KVState).rewinds
    assert not kv(WindowState).rewinds
    assert not Outer(seen=torch.tensor([1]), parts=({"mix": kv(WindowState)},), reach=0).rewinds


def test_refused_rewind_changes_nothing():
    state = Outer(seen=torch.tensor([1]), parts=({"a": Inner(tail=torch.ones(1)), "b": kv(WindowState)},), reach=0)
    with pytest.raises(GenerationError, match="cannot rewind; fork"):
        state.rewind(torch.tensor([0]))
    assert state.tensors()["parts.0.a.tail"].tolist() == [1]


def test_rewind_reaches_the_states_inside():
    state = outer(4)
    state.rewind(torch.tensor([1]))
    assert tail(state).tolist() == [[0]]


def test_saved_state_is_loaded_with_its_numbers(tmp_path):
    outer(5, 6, reach=7).save(tmp_path / "state")
    loaded = outer(0, 0, reach=0).load(tmp_path / "state")
    assert loaded.seen.tolist() == [5, 6]
    assert tail(loaded).tolist() == [[50], [60]]
    assert loaded.reach == 7


def test_state_is_loaded_in_the_precision_of_the_one_that_asks(tmp_path):
    state = kv(KVState)
    state.k.fill_(0.5)
    state.save(tmp_path / "state")
    half = KVState(k=torch.zeros(1, 1, 3, 2).half(), v=torch.zeros(1, 1, 3, 2).half()).load(tmp_path / "state")
    assert half.k.dtype == torch.float16
    assert half.k.unique().tolist() == [0.5]


def test_state_of_other_rows_or_model_is_refused(tmp_path):
    outer(5, 6).save(tmp_path / "state")
    for other in (outer(1), kv(KVState), State()):
        with pytest.raises(GenerationError, match="another model, row count or max_len"):
            other.load(tmp_path / "state")


def test_file_that_is_no_state_is_refused(tmp_path):
    with pytest.raises(GenerationError, match="not a saved state"):
        outer(1).load(tmp_path / "missing")
    (tmp_path / "text").write_text("not a state")
    with pytest.raises(GenerationError, match="not a saved state"):
        outer(1).load(tmp_path / "text")
    save_file(outer(1).tensors(), tmp_path / "weights")
    with pytest.raises(GenerationError, match="another model, row count or max_len, or none"):
        outer(1).load(tmp_path / "weights")


def test_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        outer(1).save(tmp_path / "file" / "state")
