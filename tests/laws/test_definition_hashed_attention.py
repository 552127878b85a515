"""Law 4 for attention to what hashes alike: all chunks at once equal them one by one, and the last token the whole."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from groundup.ops import hashed_attention
from laws.test_definition import TOLERANCE, assert_equal, noise, precisions, values_and_gradients


def drawn_buckets(tokens: int, rounds: int, *, real: int) -> torch.Tensor:
    made = torch.randint(5, (2, 2, tokens, rounds), generator=torch.Generator().manual_seed(tokens))
    return torch.where(torch.arange(tokens)[:, None] < real, made, 5)


@precisions
@pytest.mark.parametrize("before", [0, 1, 2])
@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize(("tokens", "chunk", "real"), [(1, 1, 1), (6, 6, 5), (8, 4, 8), (30, 5, 26)])
def test_hashed_attention_equals_its_definition(tokens, chunk, real, rounds, before, dtype):
    q, v = noise(2, 2, tokens, 6, seed=0, dtype=dtype), noise(2, 2, tokens, 5, seed=1, dtype=dtype)
    bucket = drawn_buckets(tokens, rounds, real=real)
    settings = {"chunk": chunk, "before": before, "real": real}
    if dtype == torch.float32 and rounds > 1:
        settings["before"] = 0  # -1e5 has five digits in float32: which round saw itself alone is rounded away
    fast, slow = (
        values_and_gradients(op, (q, v), bucket, **settings)
        for op in (hashed_attention.attend, hashed_attention.reference)
    )
    real_rows = [t[:, :, :real] for t in (fast[0], slow[0])]
    assert_equal([real_rows[0], *fast[1:]], [real_rows[1], *slow[1:]], tolerance=TOLERANCE[dtype])


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("chunks", [2, 5])
@torch.no_grad()
def test_the_last_token_is_that_of_the_whole_in_whole_chunks(chunks, rounds, before):
    tokens = 4 * chunks
    q, v = noise(2, 2, tokens, 6, seed=0), noise(2, 2, tokens, 5, seed=1)
    bucket = drawn_buckets(tokens, 1, real=tokens).expand(
        -1, -1, -1, rounds
    )  # equal rounds follow each other in a ring
    whole = hashed_attention.attend(q, v, bucket, chunk=4, before=before, real=tokens)
    room = (0, 0, 0, 3)  # what comes after the last token is not read
    kept = (F.pad(q, room, value=9.0), F.pad(v, room, value=9.0), F.pad(bucket, room))
    place = torch.full((2,), tokens - 1)
    last = hashed_attention.last(q[:, :, -1], *kept, place, chunk=4, before=before)
    torch.testing.assert_close(last, whole[:, :, -1])
