"""RWKV by hand, and its published sizes."""

from __future__ import annotations

import math

import pytest
import torch

from groundup.context import Context
from groundup.families import PRESETS
from groundup.mixers.rwkv import RWKV4, ChannelMix
from groundup.ops import wkv
from groundup.ops.wkv import NOTHING, Sums
from groundup.planner import books


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
    spec = PRESETS[name]()
    d, layers = spec.width, len(spec.layers)
    assert books.params(spec) == 2 * spec.vocab * d + 13 * d * d * layers + d * (11 * layers + 4)
