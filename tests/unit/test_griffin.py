"""Griffin's recurrence by hand: what a gate keeps, how documents begin, and how decays start."""

from __future__ import annotations

import math

import pytest
import torch

from groundup.context import Context
from groundup.errors import SpecError
from groundup.families.recurrent_gemma import recurrent_gemma
from groundup.mixers.griffin import RGLRU, BlockMap, RGLRUMixer


def lone() -> RGLRUMixer:
    """Returns a block of one channel whose maps are 1, whose gates are half open and whose strongest decay is 1/256."""
    made = RGLRU(channels=1, heads=1, conv=1, act="relu").build(1).double()
    with torch.no_grad():
        for name, weight in made.named_parameters():
            weight.fill_(1.0 if name in ("x.weight", "conv.weight", "out.weight", "gate.bias") else 0.0)
    return made


def test_two_tokens_by_hand():
    x = torch.tensor([[[2.0], [4.0]]], dtype=torch.float64)
    keep = 2**-4.0  # exp(-8 * softplus(0) * sigmoid(0)) = 2^-4
    first = 0.5 * 2
    second = keep * first + math.sqrt(1 - keep**2) * 0.5 * 4
    assert lone()(x, Context.whole(x)).flatten().tolist() == pytest.approx([first, second])


def test_a_document_begins_without_the_root():
    x = torch.tensor([[[2.0], [4.0]]], dtype=torch.float64)
    for positions in (torch.tensor([[0, 0]]), torch.tensor([[0, 1]])):
        ctx = Context.whole(x, segments=torch.tensor([[0, 1]]), positions=positions)
        assert lone()(x, ctx).flatten().tolist() == pytest.approx([1, 2])


def test_a_gate_that_decays_nothing_has_a_gradient():
    made = lone()
    with torch.no_grad():
        made.decay.fill_(-800.0)
    x = torch.ones(1, 3, 1, dtype=torch.float64)
    made(x, Context.whole(x)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.parameters())


def test_maps_of_gates_are_blocks():
    made = BlockMap(2, 4)
    with torch.no_grad():
        made.weight.copy_(torch.tensor([[[1.0, 10.0], [2.0, 20.0]], [[3.0, 0.0], [0.0, 4.0]]]))
    assert made(torch.tensor([[[1.0, 1.0, 1.0, 1.0]]])).flatten().tolist() == [3, 30, 3, 4]
    assert made.flops_per_token == 16


def test_first_decays_lie_between_those_asked_for():
    made = RGLRU(channels=500, heads=1, decays=(0.5, 0.9)).build(2)
    made.draw(torch.Generator().manual_seed(0))
    decays = (-torch.nn.functional.softplus(made.decay)).exp()
    assert decays.min() > 0.499 and decays.max() < 0.901
    assert decays.square().mean().item() == pytest.approx((0.25 + 0.81) / 2, abs=0.05)


@pytest.mark.parametrize(
    "change", [{"heads": 3}, {"heads": 0}, {"decays": (0.9, 0.5)}, {"decays": (0.5, 1.0)}], ids=str
)
def test_sizes_that_do_not_fit_are_refused(change):
    with pytest.raises(SpecError):
        RGLRU(**({"channels": 4, "heads": 2} | change))


def test_every_third_layer_attends():
    spec = recurrent_gemma(width=8, layers=4, heads=2, hidden=8)
    assert [type(layer.mix.mixer).__name__ for layer in spec.layers if layer.mix] == [
        "RGLRU",
        "RGLRU",
        "Attention",
        "RGLRU",
    ]
