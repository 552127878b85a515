"""Attention to sums along the text: by hand, beside plain attention, its cost, what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from groundup.context import Context
from groundup.errors import GenerationError, SpecError
from groundup.mixers.attention import Attention
from groundup.mixers.low_rank_attention import LowRankAttention, LowRankMixer
from groundup.model.decoder import Decoder
from groundup.model.layer import Layer
from groundup.model.residual import Residual
from groundup.parts.init import ScaledNormal
from groundup.parts.mask import Everything
from groundup.parts.position import NoPosition

SPEC = LowRankAttention(heads=2, head_width=4, rank=3, length=10)


def built(spec: LowRankAttention) -> LowRankMixer:
    made = spec.build(8).double()
    ScaledNormal(deviation=0.5).fill(made, residuals=1, seed=0)
    return made


def noise(rows: int, tokens: int) -> Tensor:
    return torch.randn(rows, tokens, 8, generator=torch.Generator().manual_seed(tokens), dtype=torch.float64)


@torch.no_grad()
def test_it_is_the_equation():
    made, x = built(SPEC), noise(1, 7)
    q, k, v = (linear(x[0]).unflatten(-1, (2, 4)).transpose(0, 1) for linear in (made.q, made.k, made.v))
    heads = []
    for head in range(2):
        keys, values = made.sums_k[:, :7] @ k[head], made.sums_v[:, :7] @ v[head]
        heads.append((q[head] @ keys.T / 2).softmax(-1) @ values)
    torch.testing.assert_close(made(x, Context.whole(x))[0], made.out(torch.cat(heads, -1)))


@torch.no_grad()
def test_with_as_many_sums_as_tokens_it_can_be_plain_attention():
    made, x = built(SPEC.replace(rank=7, length=7)), noise(2, 7)
    for sums in (made.sums_k, made.sums_v):
        sums.copy_(torch.eye(7))
    plain = Attention(heads=2, kv_heads=2, head_width=4, mask=Everything(), position=NoPosition()).build(8).double()
    plain.load_state_dict({name: made.state_dict()[name] for name in plain.state_dict()})
    torch.testing.assert_close(made(x, Context.whole(x)), plain(x, Context.whole(x)))


def test_operations_grow_with_the_length_of_the_text():
    made = SPEC.replace(length=4000).build(8)
    assert made.mix_flops(4000, 4000) == 10 * made.mix_flops(400, 400)


def test_a_text_beyond_its_length_is_refused():
    x = noise(1, 11)
    with pytest.raises(GenerationError, match="11 tokens long and its keys are summed over 10 places; shorten it"):
        built(SPEC)(x, Context.whole(x))


def test_it_is_refused_in_a_decoder():
    with pytest.raises(SpecError, match="which sees what comes after; a Decoder must not"):
        Decoder(width=8, vocab=9, context=10, layers=(Layer(mix=Residual(SPEC)),))


def test_more_sums_than_places_are_refused():
    with pytest.raises(SpecError, match="rank=11 is above length=10, which saves nothing"):
        SPEC.replace(rank=11)
