"""Attention to a window and to global tokens: by hand, under full masks, and its cost."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from groundup.context import Context
from groundup.errors import SpecError
from groundup.families.longformer import longformer
from groundup.mixers.attention import Attention
from groundup.mixers.local_global import LocalGlobalAttention, LocalGlobalMixer
from groundup.model.encoder import Encoder
from groundup.model.layer import Layer
from groundup.model.residual import Residual
from groundup.parts.init import ScaledNormal
from groundup.parts.mask import Causal, Near, Window
from groundup.parts.position import NoPosition


def mixer(*, reach: int, leading: int = 1) -> LocalGlobalMixer:
    made = LocalGlobalAttention(heads=2, head_width=4, reach=reach, leading=leading).build(8).double()
    ScaledNormal(deviation=0.5).fill(made, residuals=1, seed=0)
    return made


def noise(rows: int, tokens: int) -> Tensor:
    return torch.randn(rows, tokens, 8, generator=torch.Generator().manual_seed(tokens), dtype=torch.float64)


def by_hand(made: LocalGlobalMixer, x: Tensor, central: Tensor) -> Tensor:
    """The equation, token by token, for one row."""
    heads = lambda linear: linear(x[0]).unflatten(-1, (2, 4)).transpose(0, 1)  # noqa: E731
    maps = [made.q, made.k, made.v, made.global_q, made.global_k, made.global_v]
    q, k, v, *of_all = (heads(linear) for linear in maps)
    rows = []
    for t in range(x.shape[1]):
        near = (torch.arange(x.shape[1]) - t).abs() <= made.spec.reach
        (a, b, c), seen = ((of_all), near | True) if central[t] else ((q, k, v), near | central)
        weight = ((b @ a[:, t, :, None]).squeeze(-1) / 2).masked_fill(~seen, -torch.inf).softmax(-1)
        rows.append((weight[:, None] @ c).flatten())
    return made.out(torch.stack(rows))[None]


@pytest.mark.parametrize("reach", [1, 3, 50])
@torch.no_grad()
def test_window_and_global_tokens_are_the_equation(reach: int):
    made, x = mixer(reach=reach, leading=2), noise(1, 13)
    torch.testing.assert_close(made(x, Context.whole(x)), by_hand(made, x, torch.arange(13) < 2))


@torch.no_grad()
def test_the_context_says_which_tokens_are_global():
    made, x = mixer(reach=2), noise(2, 11)
    central = torch.zeros(2, 11, dtype=torch.bool)
    central[0, [3, 9]] = True
    y = made(x, Context.whole(x, central=central))
    for row in range(2):
        torch.testing.assert_close(y[row : row + 1], by_hand(made, x[row : row + 1], central[row]))


@torch.no_grad()
def test_without_global_tokens_it_is_attention_under_a_window():
    made, x = mixer(reach=3, leading=0), noise(2, 20)
    plain = Attention(heads=2, kv_heads=2, head_width=4, mask=Near(3), position=NoPosition()).build(8).double()
    plain.load_state_dict({name: made.state_dict()[name] for name in plain.state_dict()})
    torch.testing.assert_close(made(x, Context.whole(x)), plain(x, Context.whole(x)))


def test_operations_grow_with_the_length_of_the_text_and_not_with_its_square():
    with torch.device("meta"):
        made = LocalGlobalAttention(heads=2, head_width=4, reach=8).build(8)
    assert made.mix_flops(8000, 8000) == pytest.approx(10 * made.mix_flops(800, 800), rel=0.01)
    x = noise(1, 800)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        mixer(reach=8)(x, Context.whole(x))
    maps = 800 * 7 * 2 * 8 * 8
    assert counter.get_total_flops() == maps + made.mix_flops(800, 800)


@pytest.mark.parametrize("mask", [Causal(), Window(4)])
def test_a_mask_that_hides_what_comes_after_is_refused_in_an_encoder(mask):
    layer = Layer(mix=Residual(Attention(heads=2, kv_heads=2, head_width=4, mask=mask)))
    with pytest.raises(SpecError, match=r"layers.0.mix.mixer is .* hides what comes after; an Encoder reads all"):
        Encoder(width=8, vocab=10, context=8, layers=(layer,))


def test_a_longformer_with_an_odd_window_is_refused():
    with pytest.raises(SpecError, match="a window of 5 tokens has no two equal sides"):
        longformer(width=8, heads=2, windows=(4, 5))
