"""The conditions of tests/conftest.py hold; were they lost, the other tests would promise less without a word."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import torch
from jaxtyping import TypeCheckError

from groundup.context import Context
from groundup.errors import nearest
from groundup.specs import Spec


class Pair(Spec):
    width: float = 1.0


def test_argument_of_another_type_is_refused():
    given: Any = 3
    with pytest.raises(TypeCheckError):
        nearest(given, names=["a"])


def test_tensor_of_another_rank_or_kind_is_refused():
    for positions in (torch.zeros(3, dtype=torch.int64), torch.zeros(2, 3)):
        with pytest.raises(TypeCheckError):
            Context(positions=positions)


def test_one_letter_is_one_size_across_arguments():
    ids = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(TypeCheckError):
        Context.whole(ids, segments=ids, positions=ids[:, :2])


def test_whole_number_is_taken_for_a_number():
    assert Context.whole(torch.zeros(2, 3)).reach == 3
    assert Pair(width=2).replace(width=3).width == 3


@pytest.mark.usefixtures("fresh_compiler")
def test_checks_step_aside_in_compiled_code():
    def context_positions(x: torch.Tensor) -> torch.Tensor:
        return x + Context.whole(x).positions

    compiled = torch.compile(context_positions, fullgraph=True, backend="eager")
    assert torch.equal(compiled(torch.zeros(2, 3)), torch.tensor([[0.0, 1, 2], [0, 1, 2]]))


def test_unwritten_memory_is_seen():
    assert torch.empty(4).isnan().all()


@pytest.mark.parametrize("seed", [0, 1])
def test_every_test_starts_from_the_same_seed(seed):
    assert torch.initial_seed() == 0
    torch.manual_seed(seed)


def test_this_machine_can_be_reached():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert client.getpeername() == server.getsockname()


def test_no_other_machine_can_be_reached():
    with pytest.raises(pytest.fail.Exception, match="no network"):
        socket.create_connection(("a.invalid", 80))
    with socket.socket() as client, pytest.raises(pytest.fail.Exception, match="no network"):
        client.connect(("192.0.2.1", 80))
