"""Norms, positions, masks, activations and initialisation, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from groundup.context import Context
from groundup.errors import GenerationError, SpecError
from groundup.mixers.mlp import MLP
from groundup.parts.act import ACTIVATIONS, activation
from groundup.parts.init import ScaledNormal
from groundup.parts.linear import Embedding, Linear, dropout
from groundup.parts.mask import Causal, Near, Window
from groundup.parts.norm import LayerNorm, NoNorm, RMSNorm
from groundup.parts.position import (
    ALiBi,
    Learned,
    LinearScaling,
    Llama3Scaling,
    LongRoPE,
    NoPosition,
    NTKScaling,
    RoPE,
    RoundedALiBi,
    Scaling,
    Sinusoidal,
    YaRN,
)


def places(*positions: int) -> Context:
    return Context(positions=torch.tensor([positions]))


def frequencies(turned: int, theta: float) -> list[float]:
    return [theta ** (-2 * i / turned) for i in range(turned // 2)]


def scaled(scaling: Scaling, *, turned: int, theta: float) -> list[float]:
    return scaling.scale(torch.tensor(frequencies(turned, theta)), theta=theta, ctx=places(0)).tolist()


def test_rms_norm_by_numbers():
    norm = RMSNorm(eps=0.5).build(2)
    torch.nn.init.constant_(norm.get_parameter("weight"), 2.0)
    mean_of_squares = (1 + 49) / 2 + 0.5
    expected = torch.tensor([2 * 1.0, 2 * 7.0]) / math.sqrt(mean_of_squares)
    torch.testing.assert_close(norm(torch.tensor([1.0, 7.0])), expected)


def test_layer_norm_by_numbers():
    norm = LayerNorm(eps=1.0).build(4)
    torch.nn.init.constant_(norm.get_parameter("bias"), 10.0)
    x = torch.tensor([1.0, 3.0, 1.0, 3.0])  # mean 2, variance 1
    expected = 10 + torch.tensor([-1.0, 1.0, -1.0, 1.0]) / math.sqrt(2)
    torch.testing.assert_close(norm(x), expected)
    assert LayerNorm(bias=False).build(4).bias is None


def test_norms_of_bfloat16_are_computed_in_float32():
    x = torch.tensor([256.0, 1.0, -1.0, 0.5], dtype=torch.bfloat16)
    for spec in (RMSNorm(), LayerNorm()):
        exact = spec.build(4)(x.float())
        assert torch.equal(spec.build(4).bfloat16()(x), exact.bfloat16())


def test_no_norm_and_no_position_change_nothing():
    x = torch.randn(1, 2, 4)
    assert NoNorm().build(4)(x) is x
    assert NoPosition().build(4)(x, places(0, 1)) is x


def test_rotation_of_a_head_of_two():
    rotate = RoPE().of_heads(1, 2)
    x = torch.tensor([3.0, 5.0]).expand(1, 3, 1, 2)
    turned = rotate(x, places(0, 1, 7))[0, :, 0]
    expected = [[3 * math.cos(a) - 5 * math.sin(a), 5 * math.cos(a) + 3 * math.sin(a)] for a in (0, 1, 7)]
    torch.testing.assert_close(turned, torch.tensor(expected))


def test_rotation_pairs_the_halves_and_leaves_the_rest():
    rotate = RoPE(fraction=0.5, theta=100.0).of_heads(1, 8)
    x = torch.arange(1.0, 9.0).expand(1, 1, 1, 8)
    slow = 3 * 100 ** (-2 / 4)  # place 3, the second of two pairs of four turned values
    turned = rotate(x, places(3))[0, 0, 0].tolist()
    assert turned[0] == pytest.approx(1 * math.cos(3) - 3 * math.sin(3), abs=1e-5)
    assert turned[2] == pytest.approx(3 * math.cos(3) + 1 * math.sin(3), abs=1e-5)
    assert turned[1] == pytest.approx(2 * math.cos(slow) - 4 * math.sin(slow), abs=1e-5)
    assert turned[3] == pytest.approx(4 * math.cos(slow) + 2 * math.sin(slow), abs=1e-5)
    assert turned[4:] == [5, 6, 7, 8]


def test_scores_of_rotated_vectors_depend_on_the_distance_alone():
    rotate = RoPE().of_heads(1, 8)
    q, k = torch.randn(2, 1, 1, 1, 8)
    scores = [(rotate(q, places(a)) * rotate(k, places(b))).sum() for a, b in ((9, 4), (105, 100))]
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-4, atol=1e-4)


def test_rotation_of_a_narrow_model_is_not_rounded_at_far_places():
    exact = RoPE().of_heads(1, 64)(torch.ones(1, 1, 1, 64), places(100_001))
    narrow = RoPE().of_heads(1, 64).bfloat16()(torch.ones(1, 1, 1, 64, dtype=torch.bfloat16), places(100_001))
    assert (narrow.float() - exact).abs().max() < 0.02


def test_linear_scaling_divides_every_frequency():
    assert scaled(LinearScaling(factor=4.0), turned=4, theta=100.0) == pytest.approx([1 / 4, 0.1 / 4])


def test_ntk_scaling_keeps_the_fastest_pair_and_divides_the_slowest():
    made, plain = scaled(NTKScaling(factor=8.0), turned=16, theta=1e4), frequencies(16, 1e4)
    assert made[0] == pytest.approx(1.0)
    assert made[-1] == pytest.approx(plain[-1] / 8)
    base = 1e4 * 8 ** (16 / 14)
    assert made == pytest.approx([base ** (-2 * i / 16) for i in range(8)])
    assert scaled(NTKScaling(factor=8.0), turned=2, theta=1e4) == [1.0]


def test_llama3_scaling_by_wavelength():
    spec = Llama3Scaling(factor=8.0, low=1.0, high=4.0, original=8192)
    expected = []
    for frequency in frequencies(128, 5e5):
        wavelength = 2 * math.pi / frequency
        if wavelength < 8192 / 4:
            expected.append(frequency)
        elif wavelength > 8192:
            expected.append(frequency / 8)
        else:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            expected.append((1 - smooth) * frequency / 8 + smooth * frequency)
    assert len({round(new / old, 3) for new, old in zip(expected, frequencies(128, 5e5), strict=True)}) > 3
    assert scaled(spec, turned=128, theta=5e5) == pytest.approx(expected, rel=1e-5)


def test_yarn_by_pair():
    spec = YaRN(factor=16.0, original=4096)
    # Pairs 20.9 and 45.0 of 64 turn 32 times and once in 4096 tokens; between 20 and 46 the squeeze grows evenly.
    for times, pair in ((32, 20.944), (1, 45.027)):
        assert 64 * math.log(4096 / (2 * math.pi * times)) / math.log(1e4) == pytest.approx(pair, abs=1e-2)
    squeeze = [min(max((i - 20) / (46 - 20), 0), 1) for i in range(64)]
    expected = [f * (1 - s) + f / 16 * s for f, s in zip(frequencies(128, 1e4), squeeze, strict=True)]
    assert scaled(spec, turned=128, theta=1e4) == pytest.approx(expected, rel=1e-5)


def test_yarn_sharpens_what_it_rotates():
    assert YaRN(factor=16.0, original=4096).amplitude == pytest.approx(0.1 * math.log(16) + 1)
    assert YaRN(factor=0.5, original=4096).amplitude == 1.0
    rotate = RoPE(scaling=YaRN(factor=16.0, original=4096, sharpness=3.0)).of_heads(1, 4)
    assert rotate(torch.ones(1, 1, 1, 4), places(0)).tolist() == [[[[3.0] * 4]]]


LONG = LongRoPE(short=(1.0, 2.0), long=(4.0, 8.0), factor=4.0, original=3)


def test_long_rope_divides_by_the_factors_for_the_length_of_each_row():
    spec = LONG.replace(sharpness=1.0)
    ctx = Context.whole(torch.zeros(2, 5), lengths=torch.tensor([3, 4]))
    made = spec.scale(torch.tensor([1.0, 0.1]), theta=100.0, ctx=ctx)
    torch.testing.assert_close(made.flatten(1), torch.tensor([[1, 0.1 / 2], [1 / 4, 0.1 / 8]]))
    rotate = RoPE(theta=100.0, scaling=spec).of_heads(1, 4)
    turned = rotate(torch.ones(2, 5, 1, 4), ctx)[:, 2, 0]  # place 2
    for row, angles in enumerate(((2, 0.2 / 2), (2 / 4, 0.2 / 8))):
        waves = [math.cos(a) - math.sin(a) for a in angles] + [math.cos(a) + math.sin(a) for a in angles]
        torch.testing.assert_close(turned[row], torch.tensor(waves))


def test_long_rope_divides_by_the_factors_for_the_length_of_each_document():
    ids, segments = torch.zeros(1, 7), torch.tensor([[5, 5, 5, 2, 2, 2, 2]])
    ctx = Context.whole(ids, segments=segments, positions=torch.tensor([[0, 1, 2, 0, 1, 2, 3]]))
    made = LONG.scale(torch.tensor([1.0, 1.0]), theta=100.0, ctx=ctx)
    assert made[0, :, 0, 0].tolist() == [1.0] * 3 + [0.25] * 4


def test_long_rope_sharpens_what_it_rotates():
    assert LONG.amplitude == pytest.approx(math.sqrt(1 + math.log(4) / math.log(3)))
    assert LONG.replace(factor=0.5).amplitude == 1.0
    assert LONG.replace(sharpness=1.5).amplitude == 1.5


def test_alibi_falls_with_the_distance_before_and_behind():
    bias = ALiBi().of_heads(2, 4).bias(places(0, 1, 2), torch.tensor([[0, 1, 2]]))
    assert bias is not None
    for head, slope in enumerate((2**-4, 2**-8)):
        assert bias[0, head].tolist() == [
            [0, -slope, -2 * slope],
            [-slope, 0, -slope],
            [-2 * slope, -slope, 0],
        ]


def test_rounded_alibi_is_slope_times_place_in_bfloat16_and_scaled():
    bias = RoundedALiBi().of_heads(3, 4).bias(places(0), torch.tensor([[0, 1, 257]]))
    assert bias is not None
    third = 0.0625 * 4  # 2^-2, after 2^-4 and 2^-8; a place of 257 is 256 in bfloat16
    assert bias[0, :, 0].tolist() == [[0, s / 2, 256 * s / 2] for s in (2**-4, 2**-8, third)]


def test_learned_positions_are_added_by_place():
    table = Learned(3).build(2)
    table.load_state_dict({"weight": torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])})
    assert table(torch.ones(1, 2, 2), places(2, 0)).tolist() == [[[6.0, 7.0], [2.0, 3.0]]]


def test_text_beyond_the_learned_places_is_refused():
    table, x = Learned(3).build(2), torch.ones(1, 4, 2)
    with pytest.raises(GenerationError, match="4 tokens long and the model has learnt 3 places"):
        table(x, Context.whole(x))
    packed = Context.whole(x, positions=torch.tensor([[0, 1, 0, 1]]), segments=torch.tensor([[0, 0, 1, 1]]))
    assert table(x, packed).shape == x.shape


def test_sinusoidal_positions_by_formula():
    waves = Sinusoidal().build(6)(torch.zeros(1, 2, 6), places(0, 5))[0]
    expected = [f(p / 10_000 ** (2 * i / 6)) for p in (0, 5) for i in range(3) for f in (math.sin, math.cos)]
    torch.testing.assert_close(waves.flatten(), torch.tensor(expected))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RoPE(fraction=0.3).of_heads(1, 10), "turns 3 of a head's 10 values"),
        (lambda: RoPE(fraction=1.5).of_heads(1, 8), "turns 12 of a head's 8"),
        (lambda: RoPE(fraction=0.0).of_heads(1, 8), "choose a fraction"),
        (lambda: Sinusoidal().build(7), "even width, not 7"),
        (lambda: RoPE(theta=-1.0), "theta=-1.0; expected a number above 1"),
        (lambda: RMSNorm(eps=-1.0), "eps=-1.0; expected a number of at least 0"),
        (lambda: LinearScaling(factor=0.0), "factor=0.0; expected a finite number above 0"),
        (lambda: Llama3Scaling(low=4.0, high=4.0), "low=4.0 must be below high=4.0"),
        (lambda: RoPE(scaling=LONG).of_heads(1, 8), "factors for 2 pairs and RoPE turns 4"),
        (lambda: LONG.replace(short=(1.0,)), "1 short and 2 long factors"),
        (lambda: LONG.replace(original=1), "original=1 has no sharpness"),
        (lambda: LONG.replace(long=(1.0, 0.0)), "long"),
        (lambda: Learned(2**31 - 1).build(2**31 - 1), "2,147,483,647 by 2,147,483,647 weights is more than"),
        (lambda: Linear(2**31 - 1, 2**31 - 1, bias=False, role="in"), "choose smaller sizes"),
        (lambda: Window(0), "size=0; expected a whole number from 1"),
        (lambda: MLP(hidden=8, act="sulu"), r"act='sulu'; did you mean 'silu'.* expected one of gelu, "),
    ],
)
def test_sizes_that_do_not_fit_are_refused(build, message):
    with pytest.raises(SpecError, match=message):
        build()


def test_causal_mask_sees_itself_and_all_before():
    place = torch.arange(3)
    assert Causal().allowed(place[:, None], place).tolist() == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


def test_window_sees_its_size():
    place = torch.arange(4)
    assert Window(2).allowed(place[:, None], place).tolist() == [
        [True, False, False, False],
        [True, True, False, False],
        [False, True, True, False],
        [False, False, True, True],
    ]


def test_near_sees_as_far_before_as_after():
    place = torch.arange(4)
    assert Near(1).allowed(place[:, None], place).tolist() == [
        [True, True, False, False],
        [True, True, True, False],
        [False, True, True, True],
        [False, False, True, True],
    ]
    assert (Near(64).window, Near(64).causal) == (129, False)


def test_no_mask_sees_a_place_that_holds_nothing():
    for mask in (Causal(), Window(9), Near(9)):
        assert not mask.allowed(torch.tensor(3), torch.tensor(-1))


def test_activations_by_formula():
    x = torch.tensor([-2.0, -0.5, 0.0, 1.0])
    formulas = {
        "gelu": lambda v: v * 0.5 * (1 + math.erf(v / math.sqrt(2))),
        "gelu_tanh": lambda v: 0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))),
        "gelu_sigmoid": lambda v: v / (1 + math.exp(-1.702 * v)),
        "silu": lambda v: v / (1 + math.exp(-v)),
        "relu": lambda v: max(v, 0),
        "relu2": lambda v: max(v, 0) ** 2,
    }
    assert formulas.keys() == ACTIVATIONS.keys()
    for name, formula in formulas.items():
        torch.testing.assert_close(activation(name)(x), torch.tensor([float(formula(v)) for v in x.tolist()]))


def test_maps_that_write_to_the_stream_start_smaller():
    rule = ScaledNormal(deviation=0.02)
    assert rule.std(Linear(2, 2, bias=False, role="out"), residuals=25) == pytest.approx(0.02 / 5)
    assert rule.std(Linear(2, 2, bias=False, role="out"), residuals=0) == 0.02
    for other in (Linear(2, 2, bias=False, role="in"), Linear(2, 2, bias=False, role="head"), Embedding(2, 2)):
        assert rule.std(other, residuals=25) == 0.02


def test_new_maps_hold_no_weights_yet_and_draw_no_chance():
    chance = torch.get_rng_state()
    made = (Linear(3, 3, bias=True, role="in"), Embedding(3, 3))
    assert torch.equal(torch.get_rng_state(), chance)
    assert all(module.weight.isnan().all() for module in made)  # what the tests fill unwritten memory with
    assert made[0].bias.tolist() == [0, 0, 0]


def test_dropout_of_zero_is_nothing():
    assert isinstance(dropout(0.0), torch.nn.Identity)
    assert isinstance(dropout(0.1), torch.nn.Dropout)
