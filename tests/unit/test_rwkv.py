"""RWKV by hand, and its published sizes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from groundup.context import Context
from groundup.families import PRESETS
from groundup.mixers.rwkv import RWKV4, ChannelMix
from groundup.mixers.rwkv5 import RWKV5
from groundup.mixers.rwkv7 import RWKV7
from groundup.ops import diagonal_low_rank, wkv
from groundup.ops.wkv import NOTHING, Sums
from groundup.planner import books


def made(name: str) -> Any:
    """A preset as a value whose fields no type checker knows."""
    return PRESETS[name]()


def test_weighted_means_of_three_values_by_hand():
    k, v = (torch.tensor([row], dtype=torch.float64)[..., None] for row in ([0.5, -1.0, 2.0], [3.0, 5.0, -4.0]))
    w, u = torch.tensor([0.25], dtype=torch.float64), torch.tensor([0.75], dtype=torch.float64)
    nothing = torch.zeros(1, 1, dtype=torch.float64)
    y, sums = wkv.scanned(k, v, w, u, Sums(nothing, nothing, nothing + NOTHING))
    e = math.exp
    second = (e(0.5) * 3 + e(-0.25) * 5) / (e(0.5) + e(-0.25))
    third = (e(0.25) * 3 + e(-1.0) * 5 + e(2.75) * -4) / (e(0.25) + e(-1.0) + e(2.75))
    assert y.flatten().tolist() == pytest.approx([3.0, second, third])
    total = e(0.0) + e(-1.25) + e(2.0)
    assert (sums.weights * sums.top.exp()).item() == pytest.approx(total)


def test_weights_of_any_size_stay_finite():
    k = torch.tensor([1000.0, -1000.0, 500.0, 3000.0, -3000.0, 0.0]).expand(1, 1, -1).mT
    nothing = torch.zeros(1, 1)
    for w in (1e-3, 20.0):
        ends = Sums(nothing, nothing, nothing + NOTHING)
        y, _ = wkv.scanned(k, torch.arange(6.0)[None, :, None], torch.tensor([w]), torch.zeros(1), ends)
        assert y.flatten().tolist() == pytest.approx([0.0, 0.0, 0.0, 3.0, 3.0, 3.0])


@torch.no_grad()
def test_channel_mix_by_hand():
    mixer = ChannelMix(hidden=1).build(1)
    for linear, weight in ((mixer.gate, 1.0), (mixer.up, 2.0), (mixer.down, 3.0)):
        linear.weight.fill_(weight)
    mixer.mix_r.fill_(1.0)
    mixer.mix_k.fill_(0.25)
    x = torch.tensor([[[1.0], [-2.0]]])
    first = 3 * 0.5**2 / (1 + math.exp(-1.0))
    second = 3 * (2 * (0.25 * -2.0 + 0.75 * 1.0)) ** 2 / (1 + math.exp(2.0))
    assert mixer(x, Context.whole(x)).flatten().tolist() == pytest.approx([first, second])


@torch.no_grad()
def test_autocast_reads_bfloat16_near_float32():
    mixer = RWKV4(channels=16).build(16)
    for linear in (mixer.r, mixer.k, mixer.v, mixer.out):
        linear.weight.normal_(0, 0.25)
    x = torch.randn(2, 20, 16)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = mixer(x.bfloat16(), Context.whole(x))
    assert narrow.dtype == torch.bfloat16
    wide = mixer(x, Context.whole(x))
    assert (narrow.float() - wide).norm() < 0.02 * wide.norm()


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("rwkv-4-")])
def test_rwkv4_has_the_closed_form_of_the_paper(name):
    spec = made(name)
    d, layers = spec.width, len(spec.layers)
    assert books.params(spec) == 2 * spec.vocab * d + 13 * d * d * layers + d * (11 * layers + 4)


def test_rwkv5_reads_what_was_before_and_itself_with_a_bonus():
    mixer = RWKV5(heads=1, head_width=2).build(2).double()
    with torch.no_grad():
        mixer.decay.copy_(torch.tensor([0.0, -1.0]))
        mixer.bonus.copy_(torch.tensor([2.0, -3.0]))
    r, k, v = torch.randn(3, 1, 1, 3, 2, dtype=torch.float64)
    read = mixer._read(r, k, v, Context.whole(r[0, 0][None]), None)
    keep, own = torch.exp(-torch.tensor([0.0, -1.0], dtype=torch.float64).exp()), mixer.bonus
    (r1, r2, r3), (k1, k2, k3), (v1, v2, v3) = (t[0, 0] for t in (r, k, v))
    second = r2 @ k1.outer(v1) + (r2 * own) @ k2.outer(v2)
    third = r3 @ (keep[:, None] * k1.outer(v1) + k2.outer(v2)) + (r3 * own) @ k3.outer(v3)
    torch.testing.assert_close(read[0, 0], torch.stack([(r1 * own) @ k1.outer(v1), second, third]))


def test_rwkv7_replaces_the_value_of_a_key():
    """A key that is looked up, taken away and written whole holds its last value alone (the delta rule)."""
    key = torch.tensor([0.6, 0.8], dtype=torch.float64)
    keys = key.expand(1, 1, 3, 2)
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [-5.0, 6.0]], dtype=torch.float64)[None, None]
    decay = torch.zeros(1, 1, 3, 2, dtype=torch.float64)
    read, state = diagonal_low_rank.chunked(keys, keys, values, keys, keys, decay=decay)
    torch.testing.assert_close(read, values)
    torch.testing.assert_close(state[0, 0], key.outer(values[0, 0, 2]))


@torch.no_grad()
def test_rwkv7_equals_its_equations_token_by_token():
    spec = RWKV7(heads=2, head_width=4, decay_rank=3, rate_rank=2, gate_rank=5)
    mixer = spec.build(8).double()
    for weight in mixer.parameters():
        weight.normal_(0, 0.4)
    x = torch.randn(1, 7, 8, dtype=torch.float64)
    state, past, told = torch.zeros(2, 4, 4, dtype=torch.float64), torch.zeros(8, dtype=torch.float64), []
    for token in x[0]:
        at = {name: token + mix * (past - token) for name, mix in mixer.mixes.items()}
        past = token
        decay = mixer.decay.up.weight @ torch.tanh(mixer.decay.down.weight @ at["w"]) + mixer.decay.up.bias
        w = torch.exp(-torch.sigmoid(decay) / math.e**0.5).view(2, 4)
        a = torch.sigmoid(mixer.rate(at["a"])).view(2, 4)
        r, k, v = ((getattr(mixer, name).weight @ at[name]).view(2, 4) for name in "rkv")
        n = k * mixer.key_forget.view(2, 4)
        n = n / n.norm(dim=-1, keepdim=True)
        k = k * (1 + (a - 1) * mixer.key_rate.view(2, 4))
        for h in range(2):
            state[h] = w[h][:, None] * state[h] - (a[h] * n[h]).outer(n[h] @ state[h]) + k[h].outer(v[h])
        y = torch.stack([r[h] @ state[h] for h in range(2)])
        y = (y - y.mean(1, keepdim=True)) / (y.var(1, correction=0, keepdim=True) + 64e-5).sqrt()
        y = y.flatten() * mixer.norm.weight + mixer.norm.bias
        y = y + ((r * k * mixer.bonus.view(2, 4)).sum(1, keepdim=True) * v).flatten()
        gate = mixer.gate_out.weight @ torch.sigmoid(mixer.gate_in.weight @ at["g"])
        told.append(mixer.out.weight @ (y * gate))
    torch.testing.assert_close(mixer(x, Context.whole(x))[0], torch.stack(told))


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("rwkv-5-")])
def test_rwkv5_has_the_closed_form(name):
    spec = made(name)
    d, layers = spec.width, len(spec.layers)
    assert books.params(spec) == 13 * d * d * layers + 14 * d * layers + 4 * d + 2 * d * spec.vocab


def test_rwkv7_has_the_published_closed_form_but_for_what_the_first_layer_does_not_use():
    d, layers, vocab = 1024, 24, 65536
    published = 2 * vocab * d + 4 * d + layers * (19 * d + 12 * d * d + 2 * d * (64 + 32 + 64 + 128))
    assert published == 450_834_432
    assert books.params(PRESETS["rwkv-7-0.4b"]()) == published - (d + 2 * d * 32)
