"""Linear attention by hand, against the quadratic forms of its papers, and what its parts promise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from groundup.context import Context
from groundup.errors import SpecError
from groundup.mixers.linear_attention import LinearAttention, LinearAttentionMixer
from groundup.ops import delta_rule, linear_attention
from groundup.optim.groups import group
from groundup.parts.decay import Decay, FixedDecay, HeadDecay, HeadDecayModule, LowRankDecay
from groundup.parts.feature import EluPlusOne, Plain, RandomPositive, RandomPositiveModule, UnitLength
from groundup.parts.init import ScaledNormal
from groundup.parts.norm import NoNorm
from groundup.parts.reading import Gated, Normed
from groundup.parts.update import Delta

ONE_HEAD = LinearAttention(heads=1, key_heads=1, key_width=4, value_width=4)


def tokens(*values: float) -> Tensor:
    """One row and head whose queries, keys or values are single numbers."""
    return torch.tensor([float(value) for value in values])[None, None, :, None]


def mixer(**settings: Any) -> LinearAttentionMixer:
    made = ONE_HEAD.replace(**settings).build(8)
    ScaledNormal(deviation=0.5).fill(made, residuals=1, seed=0)
    return made


@torch.no_grad()
def read(made: LinearAttentionMixer, x: Tensor) -> Tensor:
    return made(x, Context.whole(x))


@pytest.mark.parametrize("op", [linear_attention.chunked, linear_attention.reference])
def test_linear_attention_adds_what_keys_and_values_make(op):
    q, k, v = tokens(1, 1, 2), tokens(1, 2, 3), tokens(3, 5, 7)
    y, state = op(q, k, v)
    assert y.flatten().tolist() == [3, 3 + 10, 2 * (3 + 10 + 21)]
    assert state.item() == 34
    half = tokens(0.5).log()
    assert op(q, k, v, decay=half)[0].flatten().tolist() == pytest.approx([3, 1.5 + 10, 2 * (0.75 + 5 + 21)])
    starts = torch.tensor([[False, True, False]])
    assert op(q, k, v, starts=starts)[0].flatten().tolist() == [3, 10, 2 * (10 + 21)]
    assert op(q, k, v, state=torch.full((1, 1, 1, 1), 100.0))[0].flatten().tolist() == [103, 113, 268]


@pytest.mark.parametrize("op", [delta_rule.chunked, delta_rule.reference])
def test_delta_rule_replaces_what_is_under_the_key(op):
    q, k, v, b = tokens(1, 1, 1), tokens(1, 1, 1), tokens(3, 5, 9), torch.tensor([[[1.0, 1.0, 0.5]]])
    assert op(q, k, v, b)[0].flatten().tolist() == [3, 5, 7]  # all of it twice, then half way from 5 to 9
    assert op(q, k, v, b, decay=tokens(0.5).log())[0].flatten().tolist() == pytest.approx([3, 5, 5.75])


def test_delta_rule_without_what_is_known_is_linear_attention():
    q, v = (torch.randn(1, 1, 4, 4, dtype=torch.float64) for _ in range(2))
    k = torch.eye(4, dtype=torch.float64)[None, None]  # keys that know nothing of each other
    delta, _ = delta_rule.chunked(q, k, v, torch.ones(1, 1, 4, dtype=torch.float64))
    torch.testing.assert_close(delta, linear_attention.chunked(q, k, v)[0])


@pytest.mark.parametrize("feature", [EluPlusOne(), RandomPositive(features=6)])
def test_weights_of_linear_attention_are_positive_and_sum_to_one(feature):
    made, x = mixer(feature=feature).double(), torch.randn(2, 30, 8, dtype=torch.float64)
    with torch.no_grad():
        q, k = (made.feature(keys(x)[:, :, None])[:, :, 0] for keys in (made.q, made.k))
        weights = (q @ k.mT).tril()
        weights = weights / weights.sum(-1, keepdim=True)
        expected = made.out(weights @ made.v(x))
    assert (weights.tril() >= 0).all()
    torch.testing.assert_close(read(made, x), expected)


def test_retention_has_the_parallel_form_of_its_paper():
    made = mixer(heads=3, key_heads=3, feature=Plain(), decay=FixedDecay(), reading=Normed(norm=NoNorm())).double()
    x = torch.randn(2, 30, 8, dtype=torch.float64)
    place = torch.arange(30)
    keep = (1 - 2.0 ** -(5 + torch.arange(3).double()))[:, None, None] ** (place[:, None] - place).clamp(min=0)
    with torch.no_grad():
        q, k, v = (m(x).unflatten(-1, (3, 4)).transpose(1, 2) for m in (made.q, made.k, made.v))
        expected = made.out(((q @ k.mT * 4**-0.5 * keep.tril()) @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(read(made, x), expected)


def test_performer_with_many_features_is_softmax_attention():
    x = torch.randn(1, 20, 8) / 4  # the larger the scores, the more features it takes
    made = mixer(feature=RandomPositive(features=20_000))
    with torch.no_grad():
        q, k, v = (m(x)[:, None] for m in (made.q, made.k, made.v))
        expected = made.out(F.scaled_dot_product_attention(q, k, v, is_causal=True)[:, 0])
    assert (read(made, x) - expected).norm() < 0.03 * expected.norm()


def test_products_of_random_features_are_exponentials_on_average():
    q, k = torch.randn(2, 1, 1, 1, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / 2
    drawn = [RandomPositive(features=6, seed=seed).build(6).double() for seed in range(1000)]
    products = torch.tensor([(feature(q) * feature(k)).sum() for feature in drawn])
    error = products.std() / len(products) ** 0.5
    assert (products.mean() - ((q * k).sum() / 6**0.5).exp()).abs() < 3 * error
    assert error < 0.05 * products.mean()


def test_random_directions_are_orthogonal_in_blocks_and_those_of_their_seed():
    made = RandomPositive(features=10, seed=1).build(4)
    assert isinstance(made, RandomPositiveModule)
    directions = made.directions
    products = directions @ directions.mT
    for block in (slice(0, 4), slice(4, 8), slice(8, 10)):
        inside = products[block, block]
        torch.testing.assert_close(inside, inside.diagonal().diag(), rtol=1e-5, atol=1e-5)
    again, other = (RandomPositive(features=10, seed=seed).build(4).state_dict() for seed in (1, 2))
    assert torch.equal(directions, again["directions"])
    assert not torch.equal(directions, other["directions"])


def test_features_of_unit_length_have_it():
    lengths = UnitLength().build(4)(10 * torch.randn(1, 5, 2, 4)).norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))


def test_a_state_does_not_grow():
    made = mixer()
    sizes = {made.new_state(2, max_len, dtype=torch.bfloat16).nbytes for max_len in (1, 10, 1_000_000)}
    assert sizes == {2 * 4 * 5 * 4}  # rows, keys, values and the sum of weights, in float32


def test_rates_and_steps_start_in_their_ranges():
    decay = HeadDecay(rates=(1.0, 4.0), steps=(0.01, 0.1)).build(8, 500, 4)
    assert isinstance(decay, HeadDecayModule)
    decay.draw(torch.Generator().manual_seed(0))
    rates, steps = decay.rate.exp(), F.softplus(decay.bias)
    assert 1 <= rates.min() < 1.1 < 3.9 < rates.max() <= 4
    assert 0.0099 < steps.min() < 0.011 < 0.09 < steps.max() < 0.101


def test_fixed_decays_lie_evenly_between_the_first_and_the_last():
    logs = FixedDecay(first=1.0, last=2.0).build(8, 3, 4)(torch.zeros(1, 1, 8))
    assert logs is not None
    assert (1 - logs.exp()).flatten().tolist() == pytest.approx([2**-1, 2**-1.5, 2**-2])


@pytest.mark.parametrize("decay", [FixedDecay(), HeadDecay(), LowRankDecay()])
def test_decays_are_at_most_0_and_in_float32(decay: Decay):
    made = decay.build(8, 3, 4)
    ScaledNormal().fill(made, residuals=1, seed=0)
    logs = made.bfloat16()(torch.randn(2, 5, 8).bfloat16())
    assert logs is not None
    assert (logs <= 0).all()
    assert logs.dtype == torch.float32
    assert logs.expand(2, 3, 5, 4).shape == (2, 3, 5, 4)


def test_rates_and_biases_are_not_decayed():
    made = mixer(feature=UnitLength(), update=Delta(), decay=HeadDecay(), reading=Gated(), conv=4)
    groups = group(made)
    assert {name for name, _ in groups.vectors} == {"decay.rate", "decay.bias", "reading.norm.weight"}
    assert {name for name, _ in groups.tables} == {"conv.short.weight"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: mixer(heads=4, key_heads=3), "choose key_heads from 1, 2, 4"),
        (lambda: mixer(heads=2**31 - 1, key_heads=2), "choose key_heads from 1$"),
        (lambda: mixer(heads=10**10), "has heads=10000000000; expected a whole number from 1"),
        (lambda: mixer(value_width=0), "has value_width=0; expected a whole number from 1"),
        (lambda: mixer(conv=-1), "has conv=-1; expected a whole number from 0"),
        (lambda: Delta(most=3.0), "up to 2"),
        (lambda: mixer(update=Delta()), r"not EluPlusOne\(\); use feature=UnitLength\(\)"),
        (lambda: FixedDecay(first=0.0), "above 0"),
        (lambda: FixedDecay(last=0.0), "above 0"),
        (lambda: HeadDecay(rates=(2.0, 1.0)), "must rise"),
        (lambda: LowRankDecay(rank=0), "has rank=0; expected a whole number from 1"),
        (lambda: LowRankDecay(slow=0.0), "has slow=0.0; expected a finite number above 0"),
        (lambda: UnitLength(eps=-1.0), "has eps=-1.0; expected a number of at least 0"),
        (lambda: RandomPositive(features=0), "has features=0; expected a whole number from 1"),
        (lambda: RandomPositive(seed=-1), "has seed=-1; expected a whole number from 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(wrong, said):
    with pytest.raises(SpecError, match=said):
        wrong()
