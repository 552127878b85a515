"""Attention to what is near reads a long text in spans, and is what it is in one matrix."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import groundup as gu
from groundup.mixers import attention
from groundup.mixers.attention import Attention
from groundup.parts.mask import Chunks, Mask, Near
from groundup.parts.score import Capped, Score, Sink

TOKENS = 1200
SIZES = {"heads": 4, "kv_heads": 2, "head_width": 8}


def model(mask: Mask, *, score: Score | None = None, layers: int = 2) -> gu.Decoder | gu.Encoder:
    mixer = Attention(mask=mask, **SIZES) if score is None else Attention(mask=mask, score=score, **SIZES)
    layer = gu.Layer(mix=gu.Residual(mixer))
    kind = gu.Decoder if mask.causal else gu.Encoder
    return kind(width=32, vocab=50, context=2 * TOKENS, layers=(layer,) * layers, head=gu.Tied())


def in_one_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "SPAN", 10**9)


def values(spec: gu.Decoder | gu.Encoder, *, segments: torch.Tensor | None) -> list[torch.Tensor]:
    """The logits, and the gradients of all weights."""
    built = spec.build(seed=1).double()
    ids = torch.randint(50, (2, TOKENS), generator=torch.Generator().manual_seed(0))
    logits = built(ids, segments=segments)
    weight = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1), dtype=logits.dtype)
    (logits * weight).sum().backward()
    return [logits.detach(), *(p.grad for p in built.parameters() if p.grad is not None)]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("mask", "score"),
    [
        (gu.Window(100), None),
        (gu.Window(300), None),
        (gu.Window(7), Capped(cap=5.0)),
        (gu.Window(50), Sink()),
        (Near(40), None),
        (Chunks(size=30, before=2), None),
    ],
    ids=repr,
)
def test_spans_are_one_matrix_values_and_gradients(
    mask: Mask, score: Score | None, packed: bool, monkeypatch: pytest.MonkeyPatch
):
    segments = None
    if packed:
        starts = torch.zeros(2, TOKENS, dtype=torch.int64)
        starts[0, [5, 400, 1000]] = starts[1, [700]] = 1
        segments = starts.cumsum(1)
    spec = model(mask, score=score)
    assert attention.spans_of(TOKENS, mask)
    found = values(spec, segments=segments)
    in_one_matrix(monkeypatch)
    for one, other in zip(found, values(spec, segments=segments), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_a_prompt_read_in_spans_goes_on_as_the_whole():
    built = model(gu.Window(100)).build(seed=1).double().eval()
    ids = torch.randint(50, (2, TOKENS + 3), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        state = built.new_state(2, TOKENS + 3)
        pieces = [built(ids[:, :TOKENS], state), *(built(ids[:, i : i + 1], state) for i in range(TOKENS, TOKENS + 3))]
        torch.testing.assert_close(torch.cat(pieces, 1), built(ids), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mask", [gu.Window(100), Near(40)], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_spans_cost_what_the_planner_counts(mask: Mask, dtype: torch.dtype):
    mixer = Attention(mask=mask, **SIZES).build(32).to(dtype)
    x, ctx = torch.randn(1, TOKENS, 32, dtype=dtype), gu.Context.whole(torch.zeros(1, TOKENS))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        mixer(x, ctx)
    maps = sum(2 * weight.numel() * TOKENS for weight in mixer.parameters())
    assert counter.get_total_flops() == maps + mixer.mix_flops(TOKENS, TOKENS)


def test_operations_grow_with_the_text():
    mixer = Attention(mask=gu.Window(100), **SIZES).build(32)
    one, two = (mixer.mix_flops(tokens, tokens) for tokens in (8192, 16_384))
    assert one < two < 2.02 * one


@pytest.mark.parametrize("mask", [gu.Causal(), gu.Window(100)], ids=repr)
def test_short_texts_are_read_at_once(mask: Mask):
    assert attention.spans_of(256, mask) == attention.spans_of(600, mask) == []
