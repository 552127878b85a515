"""Law 4: every fast operation equals its definition, values and gradients, at awkward sizes."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

import pytest
import torch
from torch import Tensor

import groundup.ops
from groundup.ops import (
    attention,
    block_attention,
    blocked_attention,
    causal_conv,
    cross_entropy,
    delta_rule,
    diagonal_low_rank,
    diagonal_scan,
    experts,
    hashed_attention,
    kernels,
    latent_attention,
    linear_attention,
    linear_scan,
    low_rank_scan,
    recurrent,
    rms_norm,
    selective_scan,
    slices,
    ssd,
    token_shift,
    wkv,
)

COVERED = {
    attention,
    block_attention,
    causal_conv,
    cross_entropy,
    delta_rule,
    diagonal_low_rank,
    diagonal_scan,
    experts,
    latent_attention,
    hashed_attention,
    linear_attention,
    linear_scan,
    low_rank_scan,
    recurrent,
    rms_norm,
    selective_scan,
    slices,
    ssd,
    token_shift,
    wkv,
}
TWINS = {blocked_attention, kernels}  # reached through the operations above, whose definition is theirs
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
precisions = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


def noise(*size: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    made = torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return made.to(dtype).requires_grad_()


def values_and_gradients(operation, inputs, *args, **settings):
    """Returns the result and the gradients of a random weighing of it."""
    result = operation(*inputs, *args, **settings)
    weight = torch.randn(result.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    used = [t for t in inputs if t is not None] + [t for t in settings.values() if isinstance(t, Tensor) and t.is_leaf]
    used = [t for t in used if t.requires_grad]
    return result, *torch.autograd.grad(result, used, weight.to(result.dtype))


def largest(x: Tensor) -> float:
    return x.abs().max().item() if x.numel() else 0.0


def assert_equal(fast, slow, *, tolerance):
    for one, two in zip(fast, slow, strict=True):
        torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance * max(1.0, largest(two)))


def test_every_operation_has_a_definition_and_is_covered():
    modules = {import_module(f"groundup.ops.{module.name}") for module in iter_modules(groundup.ops.__path__)}
    assert modules == COVERED | TWINS
    assert all(callable(module.reference) for module in COVERED)


def masks(queries: int, keys: int) -> dict[str, Tensor | None]:
    """Returns masks in which every query sees something."""
    q, k = torch.arange(queries)[:, None] + keys - queries, torch.arange(keys)
    drawn = torch.rand(2, 1, queries, keys, generator=torch.Generator().manual_seed(3)) < 0.3
    made = {
        "all": torch.ones(2, 1, queries, keys, dtype=torch.bool),
        "window": ((k <= q) & (k > q - 7)).expand(2, 1, -1, -1),
        "drawn": drawn | (k == q),
        "documents": ((k <= q) & (k // 50 == q // 50)).expand(2, 1, -1, -1),
    }
    return made | ({"causal": None} if queries == keys else {})


@precisions
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (63, 63), (300, 300), (1, 63), (130, 200)])
def test_attention_equals_its_definition(queries, keys, kv_heads, dtype):
    q = noise(2, 4, queries, 6, seed=0, dtype=dtype)
    k, v = (noise(2, kv_heads, keys, 6, seed=seed, dtype=dtype) for seed in (1, 2))
    for allowed in masks(queries, keys).values():
        fast, slow = (
            values_and_gradients(op, (q, k, v), allowed=allowed, causal=True, scale=0.4)
            for op in (attention.attend, attention.reference)
        )
        assert_equal(fast, slow, tolerance=TOLERANCE[dtype])


@precisions
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (63, 63), (1, 63), (13, 20)])
def test_attention_with_a_bias_and_without_a_mask_equals_its_definition(queries, keys, kv_heads, dtype):
    q = noise(2, 4, queries, 6, seed=0, dtype=dtype)
    k, v = noise(2, kv_heads, keys, 6, seed=1, dtype=dtype), noise(2, kv_heads, keys, 5, seed=2, dtype=dtype)
    for size in ((1, 4, 1, keys), (2, 1, queries, keys), (2, 4, queries, keys), None):
        for allowed in (None, *masks(queries, keys).values()):
            settings = {"allowed": allowed, "causal": queries == keys, "scale": 0.4}
            settings["bias"] = None if size is None else noise(*size, seed=3, dtype=dtype)
            fast, slow = (
                values_and_gradients(op, (q, k, v), **settings) for op in (attention.attend, attention.reference)
            )
            assert_equal(fast, slow, tolerance=TOLERANCE[dtype])


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (100, 100), (63, 100)])
def test_attention_in_bfloat16_is_as_near_to_float32_as_its_definition(queries, keys):
    sizes = [(2, 4, queries, 8), (2, 2, keys, 8), (2, 2, keys, 8)]
    inputs = [noise(*size, seed=seed).detach().to(torch.bfloat16) for seed, size in enumerate(sizes)]
    distance = (torch.arange(queries)[:, None] + keys - queries - torch.arange(keys)).abs()
    for bias in (None, -distance * torch.tensor([0.5, 0.25, 0.1, 0.01])[:, None, None].expand(1, -1, -1, -1)):
        for allowed in masks(queries, keys).values():
            settings = {"allowed": allowed, "causal": True, "scale": 0.4, "bias": bias}
            truth = attention.reference(*(t.float() for t in inputs), **settings)
            fast, slow = (op(*inputs, **settings) for op in (attention.attend, attention.reference))
            assert (fast - truth).norm() <= 1.2 * (slow - truth).norm() + 1e-6
            assert (fast - truth).norm() < 0.01 * truth.norm()


@precisions
@pytest.mark.parametrize("latent", [2, 9, 40])  # below half of what is made of it, keys and values never are
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (63, 63), (100, 100), (1, 63), (13, 20), (2, 100)])
def test_attention_over_latents_equals_its_definition(queries, keys, latent, dtype):
    sizes = [(2, 3, queries, 6), (2, keys, latent), (2, keys, 2), (3, 9, latent)]
    inputs = [noise(*size, seed=seed, dtype=dtype) for seed, size in enumerate(sizes)]
    for bias in (None, noise(1, 3, 1, keys, seed=4, dtype=dtype)):
        for allowed in masks(queries, keys).values():
            fast, slow = (
                values_and_gradients(op, inputs, allowed=allowed, causal=True, scale=0.4, bias=bias)
                for op in (latent_attention.attend, latent_attention.reference)
            )
            assert_equal(fast, slow, tolerance=TOLERANCE[dtype])


def test_attention_over_latents_takes_the_way_of_fewer_products():
    deepseek = {"latent": 512, "rest": 64, "up": 256}
    for queries, keys, absorbs in ((1, 1, False), (1, 4096, True), (100, 4096, True), (4096, 4096, False)):
        made, absorbed = latent_attention.products(queries, keys, **deepseek)
        assert (absorbed < made) == absorbs
        assert made == queries * keys * (192 + 128) + keys * 512 * 256


@precisions
@pytest.mark.parametrize("short", [0, 300])
def test_attention_over_short_and_long_texts_equals_its_definition(short, dtype, monkeypatch):
    monkeypatch.setattr(blocked_attention, "is_faster", lambda q, k, v: True)
    monkeypatch.setattr(blocked_attention, "SHORT", short)
    test_attention_equals_its_definition(300, 300, 2, dtype)


def test_attention_of_a_query_that_sees_nothing_is_finite():
    q, k, v = (noise(1, 1, 2, 4, seed=seed) for seed in range(3))
    found = values_and_gradients(
        attention.attend, (q, k, v), allowed=torch.zeros(1, 1, 2, 2).bool(), causal=True, scale=1.0
    )
    assert all(t.isfinite().all() for t in found)


def test_attention_casts_its_inputs_alike_under_autocast():
    q, k, v = (noise(1, 2, 5, 4, seed=seed, dtype=torch.float32) for seed in range(3))
    with torch.autocast("cpu", torch.bfloat16):
        made = attention.attend(q, k, v.bfloat16(), allowed=None, causal=True, scale=0.5)
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(
        made.float(), attention.reference(q, k, v, allowed=None, causal=True, scale=0.5), rtol=0.02, atol=0.02
    )


@precisions
@pytest.mark.parametrize("size", [(5,), (3, 7), (2, 3, 64)])
def test_rms_norm_equals_its_definition(size, dtype):
    x, weight = noise(*size, seed=0, dtype=dtype), noise(size[-1], seed=1, dtype=dtype)
    fast, slow = (values_and_gradients(op, (x, weight), eps=1e-3) for op in (rms_norm.rms_norm, rms_norm.reference))
    assert_equal(fast, slow, tolerance=TOLERANCE[dtype])


def test_attention_drops_weights_and_keeps_their_mean():
    q, k = noise(1, 1, 1, 4, seed=0), noise(1, 1, 4000, 4, seed=1)
    everything = torch.ones(1, 1, 1, 4000, dtype=torch.bool)
    for op in (attention.attend, attention.reference):
        weights_sum = op(q, k, torch.ones_like(k), allowed=everything, causal=True, scale=0.1, dropout=0.5)
        assert not torch.allclose(weights_sum, torch.ones_like(weights_sum), atol=1e-6)
        torch.testing.assert_close(weights_sum, torch.ones_like(weights_sum), rtol=0.1, atol=0.1)


@precisions
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("cap", [None, 3.0])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("tokens", [1, 63, 100, 200])
def test_cross_entropy_equals_its_definition(tokens, with_bias, cap, scaled, dtype, monkeypatch):
    monkeypatch.setattr(cross_entropy, "CHUNK_BYTES", 1)  # chunks of 64 tokens, where real vocabularies make them
    monkeypatch.setattr(cross_entropy, "SLICE_BYTES", 4 * 97 * 10)
    hidden, weight = noise(tokens, 16, seed=0, dtype=dtype), noise(97, 16, seed=1, dtype=dtype)
    bias = noise(97, seed=2, dtype=dtype) if with_bias else None
    targets = torch.randint(97, (tokens,), generator=torch.Generator().manual_seed(3))
    scale = torch.linspace(0, 3, tokens, dtype=dtype) if scaled else None
    fast, slow = (
        values_and_gradients(op, (hidden, weight), targets, bias=bias, cap=cap, scale=scale)
        for op in (cross_entropy.chunked, cross_entropy.reference)
    )
    assert_equal(fast, slow, tolerance=TOLERANCE[dtype])
    each = cross_entropy.token_losses(hidden, weight, targets, bias=bias, cap=cap)
    each = each if scale is None else each * scale
    assert_equal([each.sum()], [slow[0].detach()], tolerance=TOLERANCE[dtype])


def test_cross_entropy_of_a_hopeless_token_is_exact():
    hidden, weight = torch.tensor([[1.0], [1.0]]).requires_grad_(), torch.tensor([[200.0], [0.0]]).requires_grad_()
    targets = torch.tensor([1, 0])  # probabilities of exp(-200), which float32 cannot hold, and of 1
    for op in (cross_entropy.chunked, cross_entropy.reference):
        loss = op(hidden, weight, targets)
        assert loss.item() == 200.0
        assert torch.autograd.grad(loss, (hidden, weight))[1].tolist() == [[1.0], [-1.0]]


def test_cross_entropy_refuses_a_second_backward():
    hidden, weight = noise(3, 4, seed=0), noise(5, 4, seed=1)
    loss = cross_entropy.chunked(hidden, weight, torch.tensor([0, 1, 2]))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_cross_entropy_in_bfloat16_is_near_to_float32():
    hidden, weight = (noise(100, 16, seed=0).detach().bfloat16(), noise(97, 16, seed=1).detach().bfloat16())
    targets = torch.randint(97, (100,), generator=torch.Generator().manual_seed(3))
    wide = [t.float().requires_grad_() for t in (hidden, weight)]
    narrow = [t.requires_grad_() for t in (hidden, weight)]
    truth = values_and_gradients(cross_entropy.reference, wide, targets)
    found = values_and_gradients(cross_entropy.chunked, narrow, targets)
    for one, two in zip(found, truth, strict=True):
        assert (one.float() - two).norm() < 0.01 * two.norm()


@precisions
@pytest.mark.parametrize("tokens", [0, 1, 9])
@pytest.mark.parametrize("packed", [False, True])
def test_mixes_with_the_token_before_equal_their_definition(tokens, packed, dtype):
    sizes = [(2, tokens, 5), (2, 1, 5), (3, 5)]
    leaves = [noise(*size, seed=i, dtype=dtype) for i, size in enumerate(sizes)]
    starts = torch.arange(2 * tokens).view(2, tokens) % 4 == 0 if packed else None
    made = []
    for op in (token_shift.mixed, token_shift.reference):
        mixes = op(*leaves, starts=starts)
        drawn = [noise(*mix.shape, seed=8 + i, dtype=dtype).detach() for i, mix in enumerate(mixes)]
        made.append((*mixes, *torch.autograd.grad(mixes, leaves, drawn)))
    assert_equal(*made, tolerance=TOLERANCE[dtype])


@precisions
def test_pieces_that_lie_over_each_other_equal_their_definition(dtype):
    x, places = noise(2, 3, 20, 4, seed=0, dtype=dtype), [slice(0, 9), slice(5, 14), slice(12, 20)]
    made = []
    for op in (slices.slices, slices.reference):
        pieces = op(x, places)
        drawn = [noise(*piece.shape, seed=8, dtype=dtype).detach() for piece in pieces]
        made.append((*pieces, *torch.autograd.grad(pieces, x, drawn)))
    assert_equal(*made, tolerance=TOLERANCE[dtype])
