from __future__ import annotations

import os
import sys
from types import ModuleType

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from groundup import devices
from groundup.context import Batch, Context
from groundup.devices import autocast
from groundup.families.bloom import bloom
from groundup.families.t5 import t5
from groundup.hub.own_file import import_file
from groundup.mixers.base import MixerSpec
from groundup.model.decoder import Decoder
from groundup.model.layer import Layer
from groundup.model.residual import Residual
from groundup.objectives.next_token import next_token
from groundup.objectives.objective import Shape
from groundup.optim.joint import state_tensors
from groundup.optim.optimizers import AdamW, Muon
from groundup.planner import books
from groundup.planner.measure import count_flops
from groundup.planner.phantom import Meter
from groundup.planner.rehearsal import rehearse
from unit.planner_stand_in import GPT2, LLAMA

CPU = torch.device("cpu")
both_types = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def play(spec, dtype=torch.float32, optimizer=AdamW(), rows=2, context=16):  # noqa: B008
    return rehearse(spec, rows=rows, shape=Shape.even(context), dtype=dtype, optimizer=optimizer)


def layer_of(spec, dtype=torch.float32):
    return next(part for part in play(spec, dtype) if part.name == "layer")


def really_kept(layer, x, ctx, dtype) -> int:
    """Bytes that a layer's forward leaves behind: its output and what autograd saved, weights and input excepted."""
    kept: dict[int, int] = {}

    def pack(t):
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with autocast(CPU, dtype):
        layer(x, ctx)  # fills what layers share
        with saved_tensors_hooks(pack, lambda t: t):
            y = layer(x, ctx)
    kept[y.untyped_storage().data_ptr()] = y.untyped_storage().nbytes()
    there = [x, *layer.parameters(), *ctx.shared.values()]
    for tensor in there:
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(kept.values())


@both_types
@pytest.mark.parametrize("spec", [LLAMA, GPT2])
def test_layer_keeps_what_autograd_really_saves(spec, dtype):
    model = spec.build()
    leaf = torch.randn(2, 16, spec.width, requires_grad=True)
    ctx = Context.whole(leaf)
    real = really_kept(model.layers[0], leaf.clone(), ctx, dtype)
    part = layer_of(spec, dtype)
    assert part.kept_bytes == real


@both_types
def test_autocasts_copies_are_those_of_the_matrices(dtype):
    part = layer_of(LLAMA, dtype)
    matrices = sum(p.numel() for p in LLAMA.build().layers[0].parameters() if p.ndim == 2)
    assert part.cast_bytes == (2 * matrices if dtype == torch.bfloat16 else 0)


@pytest.mark.parametrize("optimizer", [AdamW(), Muon()])
@pytest.mark.parametrize("spec", [LLAMA, GPT2])
def test_gradients_and_optimizer_state_are_the_real_ones(spec, optimizer):
    model = spec.build()
    real = optimizer.build(model)
    model(torch.zeros(1, 4, dtype=torch.int64)).sum().backward()
    real.step()
    parts = play(spec, optimizer=optimizer)
    assert sum(part.count * part.gradient_bytes for part in parts) == 4 * books.params(spec)
    assert sum(part.count * part.optimizer_bytes for part in parts) == sum(
        t.nbytes for t in state_tensors(real).values()
    )


@both_types
def test_operations_of_a_step_are_those_that_pytorch_counts(dtype):
    spec = bloom(width=32, layers=2, heads=4, vocab=96, context=64)
    model = spec.build()
    ids = torch.randint(0, spec.vocab, (2, 16))

    def step():
        with autocast(CPU, dtype):
            loss = next_token(model, Batch(ids=ids, targets=ids)).total
        loss.backward()

    works = [(part.count, work, times) for part in play(spec, dtype) for work, times in part.forward + part.backward]
    assert sum(count * times * work.flops for count, work, times in works) == count_flops(step)


@both_types
def test_attention_in_blocks_does_fewer_operations_than_all_scores_would_take(dtype):
    parts = play(LLAMA, dtype)
    done = sum(part.count * times * work.flops for part in parts for work, times in part.forward + part.backward)
    needed = 2 * books.train_flops(LLAMA, Shape.even(16))  # two rows
    assert 0.8 * needed < done < needed


def test_backward_leaves_nothing_but_gradients():
    parts = play(LLAMA, torch.bfloat16)
    left = sum(part.count * (part.kept_bytes + part.backward_net_bytes) for part in parts)
    assert 0 <= left - 4 * books.params(LLAMA) < 4096  # the loss and a few numbers beside it
    assert all(part.backward_peak_bytes >= part.backward_net_bytes for part in parts)


def test_tied_tables_gradient_is_counted_once():
    tied = LLAMA.replace(head=GPT2.head)
    left = sum(part.count * (part.kept_bytes + part.backward_net_bytes) for part in play(tied))
    assert 0 <= left - 4 * books.params(tied) < 4096


def test_kept_memory_grows_in_a_straight_line_with_the_rows():
    one, two, three = (sum(part.count * part.kept_bytes for part in play(GPT2, rows=rows)) for rows in (2, 3, 4))
    assert three - two == two - one


def test_many_chunks_of_logits_are_put_together_from_few(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))
    rehearse.cache_clear()
    monkeypatch.setattr("groundup.ops.cross_entropy.chunk_rows", lambda weight: 8)
    whole = play(LLAMA, rows=2, context=16)[-1]  # four chunks, all of them played
    rehearse.cache_clear()
    more = play(LLAMA, rows=4, context=16)[-1]  # eight chunks, put together
    flops = [sum(work.flops * times for work, times in part.forward) for part in (whole, more)]
    assert flops[1] == 2 * flops[0]
    row_bytes = 4 * LLAMA.width
    assert more.forward_peak_bytes - whole.forward_peak_bytes == pytest.approx(32 * row_bytes, abs=1024)
    rehearse.cache_clear()


def test_second_rehearsal_is_read_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))
    rehearse.cache_clear()
    first = play(LLAMA)
    rehearse.cache_clear()
    (file,) = tmp_path.glob("rehearsal-*.json")
    assert play(LLAMA) == first
    file.write_text(file.read_text()[:-100])
    rehearse.cache_clear()
    assert play(LLAMA) == first


MIXER = """
import groundup as gu

class Edited(gu.MixerSpec):
    def build(self, width):
        return EditedMixer()

class EditedMixer(gu.Mixer):
    def forward(self, x, ctx, state=None):
        return {does}
"""


def with_mixer(mixer: type[MixerSpec]) -> Decoder:
    layers = (Layer(mix=Residual(mixer()), ffn=LLAMA.layers[0].ffn),)
    return LLAMA.replace(layers=layers)


def test_rehearsal_of_a_users_own_mixer_is_played_again_when_its_file_has_changed(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))
    file, kept = tmp_path / "rehearsed_mixer.py", []
    for number, does in enumerate(("x", "x.exp().exp().exp()")):
        file.write_text(MIXER.format(does=does))
        os.utime(file, (number, number))  # older than the package, as an unpacked archive is
        kept.append(layer_of(with_mixer(import_file(file).Edited)).kept_bytes)
        del sys.modules["rehearsed_mixer"]
    assert kept[1] > kept[0]
    assert len(list(tmp_path.glob("rehearsal-*.json"))) == 2


def test_rehearsal_of_a_mixer_without_a_file_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path))
    typed = ModuleType("typed")
    monkeypatch.setitem(sys.modules, "typed", typed)
    exec(MIXER.format(does="x").replace("Edited", "Typed"), vars(typed))
    assert layer_of(with_mixer(typed.Typed)).kept_bytes
    assert not list(tmp_path.iterdir())


def test_meter_forgets_what_nothing_refers_to():
    with Meter("cpu") as meter:
        a = torch.zeros(256)
        b = a.view(16, 16)
        assert meter.live_bytes == 1024
        c = b + 1
        del c
        assert (meter.live_bytes, meter.peak_bytes) == (1024, 2048)
        b.mul_(2)
        assert meter.live_bytes == 1024
        del a, b
    assert meter.live_bytes == 0


def test_phantoms_claim_their_device_and_hold_nothing():
    with Meter("cpu"):
        huge = torch.zeros(2**20, 2**20)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            product = huge @ huge
    assert (product.device.type, product.dtype, product.shape) == ("cpu", torch.bfloat16, (2**20, 2**20))


@pytest.mark.parametrize(("kind", "copied"), [("cpu", 4 * 256), ("cuda", 0)])
def test_numbers_of_two_types_are_copied_for_a_moment_on_a_processor(kind, copied):
    with devices.rehearsing(kind), Meter("cpu") as meter:
        a, b = torch.zeros(256), torch.zeros(256, dtype=torch.bfloat16)
        held = meter.mark()
        a.mul_(b)
        assert (meter.live_bytes, meter.peak_bytes) == (held, held + copied)
        assert [size for _, size in meter.events if size > 0] == [copied] * bool(copied)
        a.mul_(2.0)
        torch.where(b > 0, a, a)
        assert meter.peak_bytes - held <= max(copied, 5 * 256)


def test_what_layers_share_is_a_part_of_its_own_and_learnt_through_all_of_them():
    heads, tokens = 2, 16
    spec = t5(width=32, layers=3, heads=heads, hidden=64, head_width=16, vocab=96)
    parts = play(spec)
    shared = [part for part in parts if part.name == "shared"]
    assert len(shared) == 2  # the encoder's bias and the decoder's
    for part in shared:
        assert part.kept_bytes >= 4 * heads * tokens**2
        assert "embedding_dense_backward" in {work.name for work, _ in part.backward}
    # Where the bias learns, PyTorch's fused attention does not take it.
    inside = {work.name for part in parts if part.name == "layer" for work, _ in part.forward}
    assert any("softmax" in name for name in inside)


def test_an_encoders_output_has_a_gradient_from_each_layer_that_attends_to_it():
    spec = t5(width=32, layers=2, heads=2, hidden=64, head_width=16, vocab=96)
    encoders, decoders = (part for part in play(spec) if part.name == "layer")
    products = [sum(n for work, n in part.backward if work.name == "mm") for part in (encoders, decoders)]
    assert products[1] - products[0] == 8  # queries, keys, values, output: of each weight and of each input
