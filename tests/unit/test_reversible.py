"""Reversible layers: what is kept does not grow with depth, gradients are those of the plain form, what is refused."""

from __future__ import annotations

import copy

import pytest
import torch

from groundup.context import Context
from groundup.errors import SpecError
from groundup.mixers.attention import Attention
from groundup.mixers.hashed import HashedAttention
from groundup.mixers.latent_attention import LatentAttention
from groundup.mixers.mlp import MLP, ChunkedMLP
from groundup.mixers.moe import MoE
from groundup.model.decoder import Decoder, DecoderModel
from groundup.model.heads import Tied, Untied
from groundup.model.layer import Layer
from groundup.model.residual import Residual
from groundup.model.reversible import Reversible, ReversibleDecoder, ReversibleDecoderModel
from groundup.objectives.objective import Shape
from groundup.parts.norm import RMSNorm
from groundup.parts.position import SharedBias
from groundup.planner import books
from groundup.planner.measure import count_flops
from groundup.specs import override

ATTENTION = Attention(heads=2, kv_heads=1, head_width=8)
LATENT = LatentAttention(heads=2, latent=4, key_width=4, turned_width=4, value_width=4)
HASHED = HashedAttention(heads=2, head_width=8, factors=(4,), rounds=2, chunk=4)
LAYERS = (
    Reversible(mix=Residual(ATTENTION), ffn=Residual(MLP(hidden=40), scale=0.5)),
    Reversible(mix=Residual(HASHED), ffn=Residual(MLP(hidden=24))),
)
IDS = torch.randint(60, (2, 25), generator=torch.Generator().manual_seed(0))


def model(layers: int, **changes: object) -> ReversibleDecoderModel:
    spec = ReversibleDecoder(width=16, vocab=60, context=32, layers=LAYERS * (layers // 2), head=Untied())
    for path, value in changes.items():
        spec = override(spec, path.replace("__", "."), value)
    made = spec.build(seed=1)
    assert isinstance(made, ReversibleDecoderModel)
    return made


def gradients(made: ReversibleDecoderModel) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return list(torch.autograd.grad(made(IDS).logsumexp(-1).square().mean(), list(made.parameters())))


def plain_gradients(made: ReversibleDecoderModel) -> list[torch.Tensor]:
    """Returns the gradients of the same model whose layers keep what they compute."""
    plain = copy.deepcopy(made)
    plain.through = lambda layers, x, ctx, states=None: DecoderModel.through(plain, layers, x, ctx, states)  # pyrefly: ignore[bad-assignment]
    return gradients(plain)


def kept_bytes(made: ReversibleDecoderModel) -> int:
    """Returns the bytes of all tensors that autograd keeps for the backward, weights excepted."""
    weights = {p.data_ptr() for p in made.parameters()}
    kept: dict[int, int] = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        if t.data_ptr() not in weights:
            kept[t.data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = made(IDS).square().mean()
    loss.backward()
    return sum(kept.values())


def test_what_is_kept_for_the_backward_does_not_grow_with_depth():
    assert kept_bytes(model(2)) == kept_bytes(model(12))


def test_what_a_plain_decoder_keeps_does_grow():
    """So that the test before this one can fail."""
    plain = copy.deepcopy(model(12))
    plain.through = lambda layers, x, ctx, states=None: DecoderModel.through(plain, layers, x, ctx, states)  # pyrefly: ignore[bad-assignment]
    assert kept_bytes(plain) > 5 * kept_bytes(model(12))


@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_those_of_the_plain_form(training: bool):
    made = model(4).double().train(training)
    for one, two in zip(gradients(made), plain_gradients(made), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)


def test_dropout_is_drawn_alike_when_layers_are_computed_again():
    made = model(4, layers__0__mix__dropout=0.3, layers__1__ffn__dropout=0.5).double().train()
    found = gradients(made)
    for one, two in zip(found, plain_gradients(made), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)
    still = gradients(made.eval())
    assert any((one - two).abs().max() > 1e-6 for one, two in zip(found, still, strict=True))


def test_layers_are_computed_again_in_the_precision_of_the_forward():
    made = model(4).train()
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = gradients(made), plain_gradients(made)
    for one, two in zip(found, expected, strict=True):
        assert (one - two).norm() <= 0.02 * two.norm() + 1e-6


def test_operations_of_a_step_are_counted_with_the_forwards_that_are_made_again():
    made = model(4)
    counted = count_flops(lambda: made(IDS[:1, :24]).square().mean().backward())
    planned, again = (of(made.spec, Shape.even(24)) for of in (books.train_flops, books.again_flops))
    hashing = 2 * (2 * 24 * 8 * 2 * 2)  # of a layer's 2 heads, for 2 rounds of 2 directions
    assert counted == planned + again - 2 * hashing  # buckets of the two layers are found once


def test_what_is_computed_again_is_no_planned_operation():
    made = model(4)
    plain = copy.deepcopy(made)
    plain.through = lambda layers, x, ctx, states=None: DecoderModel.through(plain, layers, x, ctx, states)  # pyrefly: ignore[bad-assignment]
    counted = count_flops(lambda: plain(IDS[:1, :24]).square().mean().backward())
    assert counted == books.train_flops(made.spec, Shape.even(24))


def test_frozen_weights_get_no_gradient():
    made = model(2)
    frozen = made.get_parameter("layers.0.mix.mixer.q.weight").requires_grad_(False)
    made(IDS).square().mean().backward()
    assert frozen.grad is None
    assert all(p.grad is not None for p in made.parameters() if p is not frozen)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Reversible(mix=Residual(ATTENTION)), "has the parts mix and ffn, and not mix"),
        (
            lambda: Reversible(mix=Residual(ATTENTION, out=RMSNorm()), ffn=Residual(MLP(hidden=8))),
            "norms a sum, which cannot be undone",
        ),
        (
            lambda: Reversible(mix=Residual(ATTENTION), ffn=Residual(MoE(experts=2, active=1, hidden=8))),
            "shares values with other layers or with the loss",
        ),
        (
            lambda: Reversible(mix=Residual(ATTENTION.replace(position=SharedBias())), ffn=Residual(MLP(hidden=8))),
            "shares values with other layers or with the loss",
        ),
        (
            lambda: Reversible(mix=Residual(LATENT.replace(position=SharedBias())), ffn=Residual(MLP(hidden=8))),
            "shares values with other layers or with the loss",
        ),
        (
            lambda: Reversible(mix=Residual(ATTENTION), ffn=Residual(MLP(hidden=8)), tie="a"),
            "is tied as 'a', and layers that are computed again cannot be",
        ),
        (
            lambda: ReversibleDecoder(width=16, vocab=9, context=8, layers=(Layer(mix=Residual(ATTENTION)),)),
            "layers.0 is a Layer, which carries 1 streams and ReversibleDecoder 2",
        ),
        (
            lambda: Decoder(width=16, vocab=9, context=8, layers=LAYERS),
            "layers.0 is a Reversible, which carries 2 streams and Decoder 1",
        ),
        (
            lambda: ReversibleDecoder(width=16, vocab=9, context=8, layers=LAYERS, head=Tied()),
            "reads 32 values and the vectors of the table that it shares have 16; use Untied",
        ),
        (lambda: HASHED.replace(factors=(4, 3)), "come in opposite pairs; give even numbers"),
    ],
)
def test_what_does_not_go_backwards_is_refused(make, said):
    with pytest.raises(SpecError, match=said):
        make()


def test_a_feed_forward_part_in_chunks_keeps_its_input_alone_and_has_the_same_gradients():
    whole, chunked = MLP(hidden=512).build(16), ChunkedMLP(hidden=512, tokens=4).build(16)
    torch.nn.init.normal_(whole.up.weight, std=0.2)
    torch.nn.init.normal_(whole.down.weight, std=0.2)
    chunked.load_state_dict(whole.state_dict())
    x = torch.randn(2, 26, 16, requires_grad=True)
    ctx, kept, found = Context.whole(x), [], []
    for mixer in (whole, chunked):
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t):
            y = mixer(x, ctx)
        kept.append(max(sizes, default=0))
        found.append(torch.autograd.grad(y.square().sum(), [x, *mixer.parameters()]))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-4)
    assert kept[0] == 2 * 26 * 512
    assert kept[1] <= 2 * 26 * 16
