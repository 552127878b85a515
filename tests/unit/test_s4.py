"""S4, S4D and S5 by hand: first rates, what a token leaves, and the convolution that the recurrence is."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import pytest
import torch

from groundup.context import Context
from groundup.errors import GenerationError, SpecError
from groundup.families import PRESETS
from groundup.mixers.s4 import S4, S4D
from groundup.mixers.s5 import S5
from groundup.ops import diagonal_scan, low_rank_scan
from groundup.optim.groups import group
from groundup.parts.rates import Turning
from groundup.parts.spectrum import Inv, LegS, Lin
from groundup.planner import books


def noise(*size: int) -> torch.Tensor:
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_first_rates_by_hand():
    assert [t.tolist() for t in Lin().rates(3)] == [[0.5] * 3, pytest.approx([0.0, math.pi, 2 * math.pi])]
    assert Inv().rates(2)[1].tolist() == pytest.approx([12 / math.pi, 4 / (3 * math.pi)])


def test_legendre_rates_are_those_of_hippo_without_its_low_rank():
    n = torch.arange(8, dtype=torch.float64)
    roots = (2 * n + 1).sqrt()
    hippo = -(roots[:, None] * roots).tril(-1) - torch.diag(n + 1)
    low = (n + 0.5).sqrt()
    found = torch.linalg.eigvals(hippo + low[:, None] * low)
    torch.testing.assert_close(found.real, torch.full_like(n, -0.5))
    fades, turns = LegS().rates(4)
    torch.testing.assert_close(turns, found.imag[found.imag > 0].sort().values)
    assert fades.tolist() == [0.5] * 4


def test_the_recurrence_is_a_convolution():
    u, log = noise(2, 150, 3), torch.complex(-noise(3, 4).abs(), 9 * noise(3, 4))
    c = torch.complex(noise(3, 4), noise(3, 4).flip(0))
    kernel = 2 * (c[..., None] * (log[..., None] * torch.arange(150)).exp()).real.sum(1)
    spectrum = torch.fft.rfft(u.mT, n=300) * torch.fft.rfft(kernel, n=300)
    expected = torch.fft.irfft(spectrum, n=300)[..., :150].mT
    for op in (diagonal_scan.chunked, diagonal_scan.reference):
        torch.testing.assert_close(op(u, log, c)[0], expected)


def moved(spec: S4 | S4D | S5, width: int) -> Any:
    mixer: Any = spec.build(width).double()
    with torch.no_grad():
        for i, weight in enumerate(mixer.parameters()):
            weight.copy_(0.5 * noise(*weight.shape, i + 1)[..., -1])
    return mixer


def test_s4_starts_as_hippo_by_the_bilinear_rule():
    mixer: Any = S4(states=8).build(1).double()
    mixer.remembering.draw(torch.Generator().manual_seed(0))
    n, one = torch.arange(8, dtype=torch.float64), torch.eye(8, dtype=torch.float64)
    roots, low = (2 * n + 1).sqrt(), (n + 0.5).sqrt()
    step = mixer.remembering.step.exp().item()
    half = step / 2 * (-(roots[:, None] * roots).tril(-1) - torch.diag(n + 1))
    matrix, entering = (torch.linalg.solve(one - half, right) for right in (one + half, step * roots))
    h, expected, u = torch.zeros(8, dtype=torch.float64), [], noise(100)
    for value in u:
        h = matrix @ h + entering * value
        expected.append(low @ h)
    made, enter = mixer.remembering.matrix()
    read = torch.view_as_complex(mixer.remembering.low).conj()  # what low is among Legendre's polynomials
    y, _ = low_rank_scan.chunked(u[None, :, None], made, enter, read)
    torch.testing.assert_close(y[0, :, 0], torch.stack(expected))


def test_s4_reads_token_by_token_what_it_convolves():
    mixer, x = moved(S4(states=6), 3), noise(2, 130, 3)
    state = mixer.new_state(2, 130, dtype=torch.float64)
    pieces = []
    for place in range(130):
        positions = torch.full((2, 1), place)
        pieces.append(mixer(x[:, place : place + 1], Context.whole(x[:, :1], positions=positions), state))
    torch.testing.assert_close(torch.cat(pieces, 1), mixer(x, Context.whole(x)))


def test_s4d_holds_its_input_between_tokens():
    mixer, x = moved(S4D(states=4), 3), noise(1, 5, 3)
    a = torch.complex(-mixer.turning.fade.exp(), mixer.turning.turn)
    step, h, outputs = mixer.turning.step.exp(), torch.zeros(3, 2, dtype=torch.complex128), []
    for u in x[0]:
        h = (a * step).exp() * h + ((a * step).exp() - 1) / a * u[:, None]
        outputs.append(2 * (torch.view_as_complex(mixer.read) * h).real.sum(1) + mixer.skip * u)
    z = torch.nn.functional.gelu(torch.stack(outputs))
    torch.testing.assert_close(mixer(x, Context.whole(x))[0], mixer.out(z) * mixer.gate(z).sigmoid())


def test_s5_has_one_state_for_all_channels():
    mixer, x = moved(S5(states=8, blocks=2), 3), noise(1, 5, 3)
    a = torch.complex(-mixer.turning.fade.exp(), mixer.turning.turn).flatten()
    step, h, outputs = mixer.turning.step.exp().flatten(), torch.zeros(4, dtype=torch.complex128), []
    enter = torch.view_as_complex(mixer.enter.weight.view(4, 2, 3).mT.contiguous())  # (N, D)
    read = torch.view_as_complex(mixer.read.weight.view(3, 4, 2))  # (D, N)
    for u in x[0]:
        h = (a * step).exp() * h + ((a * step).exp() - 1) / a * (enter @ u.to(enter.dtype))
        outputs.append(2 * (read @ h).real + mixer.skip * u)
    z = torch.nn.functional.gelu(torch.stack(outputs))
    torch.testing.assert_close(mixer(x, Context.whole(x))[0], z * mixer.gate(z).sigmoid())


def test_slow_states_are_as_exact_as_float32():
    narrow = Turning(2, 8, steps=(2, 1), between=(1e-4, 1e-3), spectrum=Lin())
    narrow.draw(torch.Generator().manual_seed(0))
    wide = deepcopy(narrow).double()
    weight = torch.randn(2, 8, 2, generator=torch.Generator().manual_seed(1))
    found = []
    for made in (narrow, wide):
        values = torch.view_as_real(made()[1])
        found.append([values, *torch.autograd.grad((values * weight).sum(), list(made.parameters()))])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one.double(), two, rtol=1e-5, atol=1e-5 * two.abs().max().item())


def test_rates_and_steps_are_not_decayed():
    groups = group(PRESETS["s4d-lin-222m"]().with_distinct_layers().module())
    undecayed = {name for name, _ in groups.vectors}
    assert {f"layers.0.mix.mixer.turning.{name}" for name in ("fade", "turn", "step")} < undecayed
    undecayed = {name for name, _ in group(PRESETS["s4-224m"]().with_distinct_layers().module()).vectors}
    assert {f"layers.0.mix.mixer.remembering.{name}" for name in ("turn", "step", "low", "enter")} < undecayed


def test_names_of_presets_are_their_parameters():
    for name, millions in (("s4-224m", 224), ("s4d-lin-222m", 222), ("s4d-inv-222m", 222), ("s5-236m", 236)):
        assert round(books.params(PRESETS[name]()) / 1e6) == millions


def test_states_that_do_not_fit_are_refused():
    for kind in (S4, S4D):
        with pytest.raises(SpecError, match="states=5 is odd"):
            kind(states=5)
    with pytest.raises(SpecError, match="blocks=3"):
        S5(states=8, blocks=3)
    with pytest.raises(SpecError, match="the smaller one first"):
        S4D(steps=(0.1, 0.01))


def test_states_cannot_rewind():
    state = S4D(states=4).build(3).new_state(2, 10)
    assert not state.rewinds
    with pytest.raises(GenerationError, match="cannot rewind; fork"):
        state.rewind(torch.tensor([1, 1]))
