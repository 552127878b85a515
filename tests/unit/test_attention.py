"""Attention by hand: who is seen, who shares heads, what is remembered and what is forgotten."""

from __future__ import annotations

import math

import pytest
import torch

from groundup.context import Context
from groundup.errors import SpecError
from groundup.mixers.attention import Attention, AttentionMixer, ClippedAttention, GatedAttention
from groundup.mixers.kv import KVState, WindowState
from groundup.mixers.mlp import MLP, GatedMLP
from groundup.ops import attention
from groundup.parts.mask import Causal, Everything, Window
from groundup.parts.norm import RMSNorm
from groundup.parts.position import ALiBi, NoPosition
from groundup.state import State


def mixer(*, width: int = 4, heads: int = 2, kv_heads: int = 1, head_width: int = 2, **settings) -> AttentionMixer:
    """Returns attention in float64 with drawn weights."""
    spec = Attention(heads=heads, kv_heads=kv_heads, head_width=head_width, **settings)
    made = spec.build(width).double()
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(torch.randn(weight.shape, dtype=torch.float64))
    return made


def noise(*size: int) -> torch.Tensor:
    return torch.randn(size, dtype=torch.float64)


def context(rows: int, tokens: int) -> Context:
    return Context.whole(torch.zeros(rows, tokens))


def after(state_seen: list[int], tokens: int, *, lengths: list[int] | None = None) -> Context:
    seen = torch.tensor(state_seen)
    given = None if lengths is None else torch.tensor(lengths)
    return Context.after(seen, tokens, reach=max(state_seen) + tokens, lengths=given)


def test_weights_of_two_keys_by_hand():
    q, k = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[2.0, 9.0], [0.0, 9.0]]]])
    v = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]])
    seen = torch.ones(1, 1, 1, 2, dtype=torch.bool)
    first = math.exp(0.5 * 2) / (math.exp(0.5 * 2) + 1)
    for op in (attention.reference, attention.attend):
        torch.testing.assert_close(
            op(q, k, v, allowed=seen, causal=True, scale=0.5), torch.tensor([[[[first, 1 - first]]]])
        )


def test_gates_by_hand():
    made = GatedAttention(heads=2, kv_heads=1, head_width=2, bias=True).build(4).double()
    plain = Attention(heads=2, kv_heads=1, head_width=2, bias=True).build(4).double()
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_()
        made.gate.weight.zero_()
        made.gate.bias.copy_(torch.tensor([0.0, 100.0, -100.0, 0.0]))
    plain.load_state_dict({name: t for name, t in made.state_dict().items() if not name.startswith("gate")})
    x = noise(2, 3, 4)
    read = plain.heads(x, context(2, 3), None) * torch.tensor([0.5, 1.0, 0.0, 0.5], dtype=torch.float64)
    torch.testing.assert_close(made(x, context(2, 3)), plain.out(read))


def test_queries_keys_and_values_beyond_a_limit_are_cut_off():
    made = ClippedAttention(heads=1, kv_heads=1, head_width=2, position=NoPosition(), limit=1.0).build(2).double()
    with torch.no_grad():
        made.q.weight.copy_(torch.tensor([[9.0, 0.0], [0.0, 0.5]]))
        made.k.weight.copy_(torch.tensor([[-9.0, 0.0], [0.0, 0.5]]))
        made.v.weight.copy_(torch.tensor([[0.25, 0.0], [0.0, -9.0]]))
    q, k, v = made.maps(torch.ones(1, 1, 2, dtype=torch.float64))
    assert [y.flatten().tolist() for y in (q, k, v)] == [[1.0, 0.5], [-1.0, 0.5], [0.25, -1.0]]


@pytest.mark.parametrize("mask", [Causal(), Everything(), Window(300)])
def test_alibi_in_bfloat16_is_near_to_float64_in_long_texts(mask):
    made = mixer(heads=4, kv_heads=4, mask=mask, position=ALiBi())
    x = 0.5 * noise(1, 700, 4)
    y = made(x, Context.whole(x))
    rounded = made.bfloat16()(x.bfloat16(), Context.whole(x)).double()
    assert (rounded - y).norm() < 0.02 * y.norm()


def test_first_token_sees_itself_alone():
    made, x = mixer(position=NoPosition()), noise(1, 3, 4)
    value = made.v(x)[0, 0]
    torch.testing.assert_close(made(x, context(1, 3))[0, 0], made.out(torch.cat([value, value])))


def test_each_group_of_queries_reads_its_own_keys():
    q, v = noise(1, 4, 3, 2), noise(1, 2, 3, 2)
    k = noise(1, 2, 3, 2)
    shared = attention.attend(q, k, v, allowed=None, causal=True, scale=1.0)
    for head in range(4):
        group = slice(head // 2, head // 2 + 1)
        alone = attention.attend(q[:, head : head + 1], k[:, group], v[:, group], allowed=None, causal=True, scale=1.0)
        torch.testing.assert_close(shared[:, head : head + 1], alone)


def test_attention_is_what_its_equation_says():
    made = mixer(kv_heads=2, norm=RMSNorm(eps=0.0), bias=True, out_bias=True)
    x, weights = noise(1, 3, 4), made.state_dict()

    def heads(name, norm=None):
        y = (x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])[0].unflatten(-1, (2, 2))  # (T, H, K)
        if norm is None:
            return y
        y = y / y.square().mean(-1, keepdim=True).sqrt() * weights[norm]
        angle = torch.arange(3.0)[:, None]
        turned = (y[..., 0] * angle.cos() - y[..., 1] * angle.sin(), y[..., 1] * angle.cos() + y[..., 0] * angle.sin())
        return torch.stack(turned, -1)

    q, k, v = heads("q", "q_norm.weight"), heads("k", "k_norm.weight"), heads("v")
    assert len(list(made.parameters())) == 10
    score = torch.einsum("thk,shk->hts", q, k) / math.sqrt(2)
    score = score.masked_fill(torch.ones(3, 3).triu(1).bool(), -math.inf)
    mixed = torch.einsum("hts,shk->thk", score.softmax(-1), v).flatten(1)
    expected = mixed @ weights["out.weight"].T + weights["out.bias"]
    torch.testing.assert_close(made(x, context(1, 3))[0], expected, rtol=1e-6, atol=1e-6)


def test_norm_of_queries_and_keys_makes_their_size_not_matter():
    made, x = mixer(norm=RMSNorm(eps=0.0), position=NoPosition()), noise(1, 3, 4)
    before = made(x, context(1, 3))
    with torch.no_grad():
        made.q.weight.mul_(3)
        made.k.weight.mul_(5)
    torch.testing.assert_close(made(x, context(1, 3)), before)


def test_window_forgets_old_tokens():
    made, x = mixer(mask=Window(2)), noise(1, 5, 4)
    before = made(x, context(1, 5))
    changed = x.clone()
    changed[:, :3] = noise(1, 3, 4)
    after_change = made(changed, context(1, 5))
    torch.testing.assert_close(after_change[:, 4], before[:, 4])
    assert (after_change[:, 3] - before[:, 3]).abs().max() > 1e-6


def test_state_has_a_slot_for_every_token_or_for_those_of_the_window():
    full, window = mixer(kv_heads=2), mixer(mask=Window(3))
    assert full.new_state(5, 7, dtype=torch.float16).nbytes == 2 * (5 * 2 * 7 * 2) * 2
    ring = window.new_state(5, 7)
    assert isinstance(ring, WindowState) and ring.k.shape == (5, 1, 3, 2)
    small = window.new_state(5, 2)
    assert isinstance(small, KVState) and small.k.shape == (5, 1, 2, 2)
    assert all(t.is_meta for t in window.new_state(5, 7, device="meta").tensors().values())


def test_states_of_a_window_join_whatever_their_room():
    window = mixer(mask=Window(3))
    short, long = window.new_state(1, 3), window.new_state(1, 9)
    joined = State.join([short, long])
    assert isinstance(joined, WindowState) and joined.k.shape == (2, 1, 3, 2)


def test_keys_are_in_the_slots_of_their_places():
    state = KVState(k=torch.zeros(2, 1, 4, 1), v=torch.zeros(2, 1, 4, 1))
    new = torch.tensor([[[[5.0], [6.0]]], [[[7.0], [8.0]]]])
    k, v, places = state.append(new, -new, after([0, 2], 2))
    assert state.k.flatten(1).tolist() == [[5, 6, 0, 0], [0, 0, 7, 8]]
    assert torch.equal(v, -k)
    assert places.tolist() == [[0, 1, 2, 3]] * 2


def test_ring_keeps_the_last_tokens_of_every_row():
    state = WindowState(k=torch.zeros(2, 1, 3, 1), v=torch.zeros(2, 1, 3, 1))
    tokens = torch.arange(1.0, 6.0).expand(2, 1, 5)[..., None]
    k, _, places = state.append(tokens, tokens, after([0, 0], 5, lengths=[5, 2]))
    # Row 0 read 1 to 5, the last three of which are places 2, 3, 4; row 1 read 1 and 2.
    assert state.k.flatten(1).tolist() == [[4, 5, 3], [1, 2, 0]]
    assert places.tolist() == [[-1, -1, -1, 0, 1, 2, 3, 4]] * 2
    assert k.shape[2] == 8
    one = torch.full((2, 1, 1, 1), 9.0)
    k, _, places = state.append(one, one, after([5, 2], 1))
    assert k.flatten(1).tolist() == [[4, 5, 9], [1, 2, 9]]
    assert places.tolist() == [[3, 4, 5], [0, 1, 2]]


def test_ring_is_not_changed_by_padding():
    state = WindowState(k=torch.ones(1, 1, 3, 1), v=torch.ones(1, 1, 3, 1))
    for tokens in (1, 2, 7):
        junk = torch.full((1, 1, tokens, 1), 9.0)
        state.append(junk, junk, after([4], tokens, lengths=[0]))
    assert state.k.unique().tolist() == [1]


def test_padding_sees_a_key_also_where_nothing_was_read():
    state = WindowState(k=torch.zeros(1, 1, 3, 1), v=torch.zeros(1, 1, 3, 1))
    for tokens in (1, 4):
        junk = torch.full((1, 1, tokens, 1), 9.0)
        ctx = after([0], tokens, lengths=[0])
        _, _, places = state.append(junk, junk, ctx)
        assert Window(3).over(ctx, keys=places).any(-1).all()


def test_window_saves_operations_that_no_token_needs():
    full, window = mixer(), mixer(mask=Window(3))
    assert full.mix_flops(1, 100) == 2 * (2 * 2 * 2 * 100)  # scores and sums, 2 heads of 2, 100 keys
    assert window.mix_flops(1, 100) == 2 * (2 * 2 * 2 * 3)
    assert window.mix_flops(1, 2) == full.mix_flops(1, 2)
    assert window.mix_flops(50, 50) == full.mix_flops(50, 50)


def test_attention_weights_are_dropped_in_training_alone():
    made, x = mixer(dropout=0.5), noise(1, 6, 4)
    still = made.eval()(x, context(1, 6))
    torch.testing.assert_close(made(x, context(1, 6)), still)
    made.train()
    assert (made(x, context(1, 6)) - still).abs().max() > 1e-6


def test_mlp_by_numbers():
    made = MLP(hidden=2, act="relu", bias=True).build(1)
    made.load_state_dict(
        {
            "up.weight": torch.tensor([[2.0], [-2.0]]),
            "up.bias": torch.tensor([1.0, 1.0]),
            "down.weight": torch.tensor([[10.0, 100.0]]),
            "down.bias": torch.tensor([0.5]),
        }
    )
    x = torch.tensor([[[3.0], [-3.0]]])
    assert made(x, context(1, 2)).flatten().tolist() == [70.5, 700.5]


def test_gated_mlp_by_numbers():
    made = GatedMLP(hidden=1, act="relu").build(1)
    made.load_state_dict(
        {f"{name}.weight": torch.tensor([[w]]) for name, w in (("gate", 2.0), ("up", 5.0), ("down", 7.0))}
    )
    x = torch.tensor([[[3.0], [-3.0]]])
    assert made(x, context(1, 2)).flatten().tolist() == [7 * (2 * 3) * (5 * 3), 0]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"heads": 12, "kv_heads": 5}, r"heads=12 is not a multiple of kv_heads=5; choose kv_heads from 1, 2, 3, 4"),
        ({"heads": 2, "kv_heads": 4}, "choose kv_heads from 1, 2$"),
        ({"heads": 2**31 - 1, "kv_heads": 2}, "choose kv_heads from 1$"),
        ({"heads": 2, "kv_heads": 0}, "has kv_heads=0; expected a whole number from 1"),
        ({"heads": 2, "kv_heads": 2, "head_width": 0}, "has head_width=0; expected a whole number from 1"),
    ],
)
def test_heads_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(SpecError, match=message):
        Attention(**({"head_width": 8} | sizes))


def test_mlp_without_a_width_is_refused():
    for kind in (MLP, GatedMLP):
        with pytest.raises(SpecError, match="hidden=0; expected a whole number from 1"):
            kind(hidden=0)
