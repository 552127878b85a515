"""Activations that are made again, and an optimizer on the host: what they save, and what they take."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from groundup.context import Context
from groundup.errors import ConfigError
from groundup.families.t5 import t5
from groundup.objectives.objective import Shape
from groundup.optim.optimizers import AdamW, Muon
from groundup.planner import hardware, offload
from groundup.planner.memory import training_memory
from groundup.planner.plan import plan
from groundup.planner.recompute import named, played_again
from groundup.planner.rehearsal import rehearse
from groundup.planner.time import works_seconds
from unit.planner_stand_in import GPT2, LLAMA, MACHINE

pytestmark = pytest.mark.usefixtures("unchecked_signatures")

ROWS, TOKENS = 8, LLAMA.context
STREAM = 4 * ROWS * TOKENS * LLAMA.width
PARTS = rehearse(LLAMA, rows=ROWS, shape=Shape.even(TOKENS), dtype=torch.bfloat16, optimizer=AdamW(), device="cuda")


def test_a_layer_keeps_what_it_reads_and_plays_its_forward_again():
    again = played_again(PARTS, "full", stream_bytes=[STREAM])
    for was, now in zip(PARTS, again, strict=True):
        if was.name != "layer":
            assert now == was
            continue
        assert (now.kept_bytes, now.cast_bytes) == (STREAM, 0)
        twice = works_seconds(was.forward, MACHINE) + works_seconds(was.backward, MACHINE)
        assert works_seconds(now.backward, MACHINE) == pytest.approx(twice)
        # Whether it is kept or made again, nothing but gradients is left after the backward.
        assert now.kept_bytes + now.backward_net_bytes == was.kept_bytes + was.backward_net_bytes


def test_less_is_kept_the_more_is_made_again():
    peaks = [
        training_memory(played_again(PARTS, how, stream_bytes=[STREAM]), device="cuda").peak_bytes
        for how in ("none", "selective", "full")
    ]
    assert peaks == sorted(peaks, reverse=True) and peaks[0] > peaks[2]
    assert played_again(PARTS, "none", stream_bytes=[STREAM]) == PARTS


def test_the_peak_of_a_real_step_whose_layers_are_made_again_is_met():
    """Held to torch's own checkpointing: what the graph of a layer keeps is one tensor as large as the stream."""
    module = GPT2.build()
    x = torch.zeros(2, GPT2.context, GPT2.width, requires_grad=True)
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        ctx = Context.whole(torch.zeros(2, GPT2.context, dtype=torch.int64))
        layer = partial(module.through, [module.layers[0]], ctx=ctx)
        y = checkpoint(layer, x, use_reentrant=False)
    parts = rehearse(GPT2, rows=2, shape=Shape.even(GPT2.context), dtype=torch.float32, optimizer=AdamW())
    (part,) = [part for part in played_again(parts, "full", stream_bytes=[x.nbytes]) if part.name == "layer"]
    assert y.shape == x.shape
    assert sum(kept.values()) == part.kept_bytes == x.nbytes


def test_a_plan_of_one_device_makes_layers_again():
    none, selective, layers, full = (
        plan(LLAMA, rows=64, on="H100", checkpointing=how) for how in ("none", "selective", "layers", "full")
    )
    assert none.peak_bytes > selective.peak_bytes > layers.peak_bytes == full.peak_bytes
    assert none.step_seconds < selective.step_seconds < layers.step_seconds == full.step_seconds
    assert none.checkpointing == "none" and layers.checkpointing == "full"
    assert any("keeps every activation yet" in said for said in layers.assumptions)
    assert none.train_flops == layers.train_flops  # what is made again is no work needed


def test_each_stack_reads_a_stream_of_its_own():
    both = t5(width=32, layers=2, decoder_layers=2, heads=2, head_width=16, hidden=64, vocab=96)
    none, layers = (plan(both, rows=4, context=64, on="H100", checkpointing=how) for how in ("none", "layers"))
    assert layers.activations_bytes < none.activations_bytes


def test_a_way_of_checkpointing_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match=r"checkpointing='layer' is unknown; .*layers"):
        named("layer")


def test_a_host_takes_the_optimizers_state_and_time():
    here, away = (plan("gpt2", rows=2, on="RTX-4090", offload=there) for there in (False, True))
    assert away.optimizer_bytes == 0 and here.peak_bytes - away.peak_bytes >= here.optimizer_bytes
    assert away.step_seconds > here.step_seconds and away.offload
    device = hardware.parse("RTX-4090")[1]
    slow, fast = (offload.seconds(device, params=1e9, bytes_each=size) for size in (8, 4))
    assert slow - fast == pytest.approx(1e9 * 4 / (offload.REACHED * 32e9))


def test_what_no_host_can_take_is_refused():
    with pytest.raises(ConfigError, match="from an accelerator to its host's memory"):
        plan(LLAMA, on=MACHINE, offload=True)
    with pytest.raises(ConfigError, match="offload is planned for adamw alone"):
        plan(LLAMA, on="H100", optimizer=Muon(), offload=True)


def test_products_in_fewer_bits_are_faster_where_a_device_has_them():
    half, eighth = (plan("gpt2", rows=16, on="H100", precision=precision) for precision in ("bf16", "fp8"))
    assert eighth.step_seconds < half.step_seconds < 2 * eighth.step_seconds
    assert eighth.precision == "float8" and any("float8" in said for said in eighth.assumptions)
    assert plan(LLAMA, rows=2, on="H100", precision="fp16").step_seconds == pytest.approx(
        plan(LLAMA, rows=2, on="H100", precision="bf16").step_seconds
    )
    with pytest.raises(
        ConfigError, match=r"nobody says how fast A100-SXM-80GB multiplies in float8; those that do: .*H100"
    ):
        plan(LLAMA, on="A100", precision="fp8")
    with pytest.raises(ConfigError, match="precision=fp16 is planned by published rates"):
        plan(LLAMA, on=MACHINE, precision="fp16")
