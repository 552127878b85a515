"""Law 4 for what is read token by token: fast operations equal their definitions, with states and documents."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from groundup.ops import causal_conv, diagonal_scan, low_rank_scan, selective_scan, ssd
from laws.test_definition import TOLERANCE, assert_equal, noise, precisions, values_and_gradients

every_length = pytest.mark.parametrize("tokens", [1, 2, 63, 100])
documents = pytest.mark.parametrize("packed", [False, True])


def starts(rows: int, tokens: int) -> Tensor:
    """Returns beginnings of documents, different in every row, some next to each other."""
    return torch.rand(rows, tokens, generator=torch.Generator().manual_seed(7)) < 0.15


@precisions
@every_length
@documents
@pytest.mark.parametrize("taps", [1, 2, 4])
@pytest.mark.parametrize("past", [False, True])
def test_causal_conv_equals_its_definition(tokens, packed, taps, past, dtype):
    x, weight, bias = (noise(*size, seed=i, dtype=dtype) for i, size in enumerate([(2, tokens, 5), (5, taps), (5,)]))
    before = noise(2, taps - 1, 5, seed=4, dtype=dtype) if past and taps > 1 else None
    begin = starts(2, tokens) if packed else None
    for given in (bias, None):
        fast, slow = (
            values_and_gradients(op, (x, weight, given), before=before, starts=begin)
            for op in (causal_conv.causal_conv, causal_conv.reference)
        )
        assert_equal(fast, slow, tolerance=TOLERANCE[dtype])


@precisions
@every_length
@documents
@pytest.mark.parametrize("past", [False, True])
def test_selective_scan_equals_its_definition(tokens, packed, past, dtype, monkeypatch):
    monkeypatch.setattr(selective_scan, "SPAN_STATES", 64 * 3 * 4)  # blocks of one row and four channels
    sizes = [(2, tokens, 5), (2, tokens, 5), (3, 5), (2, tokens, 3), (2, tokens, 3)]
    x, step, a, b, c = (noise(*size, seed=i, dtype=dtype) for i, size in enumerate(sizes))
    step, a = (t.detach().abs().requires_grad_() for t in (step, a))
    before = noise(2, 3, 5, seed=5, dtype=dtype) if past else None
    begin = starts(2, tokens) if packed else None

    def ends(op, *_):
        y, after = op(x, step, -a, b, c, before=before, starts=begin)
        return torch.cat([y.flatten(), after.flatten()])

    inputs = [x, step, a, b, c, *([before] if past else [])]
    fast, slow = (
        values_and_gradients(partial(ends, op), inputs) for op in (selective_scan.scan, selective_scan.reference)
    )
    assert_equal(fast, slow, tolerance=TOLERANCE[dtype])


@precisions
@every_length
@documents
@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_ssd_equals_its_definition(tokens, packed, past, groups, dtype):
    sizes = [(2, tokens, 4, 3), (2, tokens, 4), (4,), (2, tokens, groups, 5), (2, tokens, groups, 5)]
    x, step, a, b, c = (noise(*size, seed=i, dtype=dtype) for i, size in enumerate(sizes))
    step, a = (t.detach().abs().requires_grad_() for t in (step, a))
    before = noise(2, 4, 3, 5, seed=5, dtype=dtype) if past else None
    begin = starts(2, tokens) if packed else None

    def ends(op, *_):
        y, after = op(x, step, -a, b, c, before=before, starts=begin)
        return torch.cat([y.flatten(), after.flatten()])

    inputs = [x, step, a, b, c, *([before] if past else [])]
    fast, slow = (values_and_gradients(partial(ends, op), inputs) for op in (ssd.chunked, ssd.reference))
    assert_equal(fast, slow, tolerance=TOLERANCE[dtype])


@precisions
@pytest.mark.parametrize("tokens", [1, 2, 63, 100, 192])
@documents
@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
def test_diagonal_scan_equals_its_definition(tokens, packed, past, ragged, dtype):
    sizes = [(3, tokens, 4), (4, 5), (4, 5), (4, 5, 2), (3, 4, 5, 2)]
    u, fade, turn, c, h = (noise(*size, seed=i, dtype=dtype) for i, size in enumerate(sizes))
    begin = starts(3, tokens) if packed else None
    lengths = torch.tensor([tokens, tokens // 2, max(tokens - 1, 0)]) if ragged else None
    real = torch.arange(tokens) < (torch.tensor([tokens]) if lengths is None else lengths[:, None])

    def ends(op, *_):
        log, before = torch.complex(-fade.exp(), turn), torch.view_as_complex(h) if past else None
        y, after = op(u, log, torch.view_as_complex(c), before=before, starts=begin, lengths=lengths)
        return torch.cat([(y * real[..., None]).flatten(), torch.view_as_real(after).flatten()])

    inputs = [u, fade, turn, c, *([h] if past else [])]
    fast, slow = (
        values_and_gradients(partial(ends, op), inputs) for op in (diagonal_scan.chunked, diagonal_scan.reference)
    )
    assert_equal(fast, slow, tolerance=TOLERANCE[dtype])


@precisions
@pytest.mark.parametrize("tokens", [1, 2, 63, 100, 192])
@documents
@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
def test_low_rank_scan_equals_its_definition(tokens, packed, past, ragged, dtype):
    sizes = [(3, tokens, 4), (4, 5), (4, 5), (4, 5, 2), (4, 5, 2), (4, 5, 2), (4, 5, 2), (3, 4, 5, 2)]
    u, fade, turn, g, w, b, c, h = (noise(*size, seed=i, dtype=dtype) for i, size in enumerate(sizes))
    begin = starts(3, tokens) if packed else None
    lengths = torch.tensor([tokens, tokens // 2, max(tokens - 1, 0)]) if ragged else None
    real = torch.arange(tokens) < (torch.tensor([tokens]) if lengths is None else lengths[:, None])

    def ends(op, *_):
        push, heard, enter, read = (torch.view_as_complex(t) for t in (g, w, b, c))
        matrix = low_rank_scan.Matrix(torch.complex(-fade.exp(), turn).exp(), push / 10, heard / 5)
        before = torch.view_as_complex(h) if past else None
        y, after = op(u, matrix, enter, read, before=before, starts=begin, lengths=lengths)
        return torch.cat([(y * real[..., None]).flatten(), torch.view_as_real(after).flatten()])

    inputs = [u, fade, turn, g, w, b, c, *([h] if past else [])]
    fast, slow = (
        values_and_gradients(partial(ends, op), inputs) for op in (low_rank_scan.chunked, low_rank_scan.reference)
    )
    assert_equal(fast, slow, tolerance=TOLERANCE[dtype])
