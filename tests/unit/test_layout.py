"""Layouts of several devices: held to published runs, and to what sharing means."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.errors import ConfigError
from groundup.families import PRESETS
from groundup.families.gpt2 import gpt2
from groundup.families.mixtral import mixtral
from groundup.families.t5 import t5
from groundup.model.decoder import Decoder
from groundup.objectives.objective import Shape
from groundup.optim.optimizers import AdamW
from groundup.planner import books, hardware, layout, offload, parallel
from groundup.planner.job import MANY
from groundup.planner.layout import Experts, Job, Layout, fastest, lay, search
from groundup.planner.plan import plan
from groundup.planner.rehearsal import rehearse
from groundup.planner.time import works_seconds
from groundup.specs import override
from unit.planner_stand_in import LLAMA

pytestmark = pytest.mark.usefixtures("unchecked_signatures")

with (Path(__file__).parent.parent / "data" / "training_compute.csv").open(newline="") as file:
    RUNS = [
        row
        for row in csv.DictReader(file)
        if row["gpu_type"].startswith("H100") and row["parallelism"].startswith("TP")
    ]
H100 = hardware.parse("H100-SXM")[1]


def job_of(spec: Decoder, *, context: int, rows: int, device: hardware.Device = H100) -> Job:
    shape = Shape.even(context)
    played = partial(rehearse, spec, shape=shape, dtype=torch.bfloat16, optimizer=AdamW(), device="cuda")
    return Job(
        parts=played(rows=1),
        many=played(rows=MANY),
        layers=len(spec.layers),
        width=spec.width,
        heads=books.shared_heads(spec),
        context=context,
        rows=rows,
        machine=device.machine(),
        device=device,
    )


def published(row: dict[str, str]) -> tuple[Decoder, Layout]:
    sizes: dict[str, Any] = {
        name.lower(): int(size) for name, size in re.findall(r"(TP|CP|PP|DP)(\d+)", row["parallelism"])
    }
    if row["model"].startswith("Llama 3.1 405B"):
        spec = PRESETS["llama-3.1-405b"]()
        assert isinstance(spec, Decoder)
        return override(spec, "context", int(row["seq_len"])), Layout(**sizes)
    named: dict[str, Any] = {name: int(row[name]) for name in ("layers", "heads", "vocab")}
    return gpt2(width=int(row["hidden"]), context=int(row["seq_len"]), **named), Layout(**sizes)


def utilisation(job: Job, spec: Decoder, seconds: float, devices: int) -> float:
    flops = books.train_flops(spec, Shape.even(job.context)) * job.rows
    return flops / seconds / devices / H100.flops_per_second["bfloat16"]


@pytest.mark.slow
@pytest.mark.parametrize("row", RUNS, ids=lambda row: row["model"])
def test_published_runs_on_h100s_are_met_within_10_percent(row: dict[str, str]):
    spec, given = published(row)
    job, devices = job_of(spec, context=int(row["seq_len"]), rows=int(row["global_batch_seqs"])), int(row["gpus"])
    assert given.devices == devices
    # The layouts say nothing of micro-batches, rounds and what was recomputed: the fastest of those that fit.
    like = [
        laid
        for laid in (lay(job, one) for one in layout._layouts(job, devices=devices, micro=layout.MICRO))
        if laid.fits and (laid.layout.tp, laid.layout.pp, laid.layout.zero) == (given.tp, given.pp, 1)
    ]
    seconds = min(laid.step_seconds for laid in like)
    assert 100 * utilisation(job, spec, seconds, devices) == pytest.approx(float(row["mfu_pct"]), rel=0.10)


@pytest.mark.slow
@pytest.mark.parametrize("row", [row for row in RUNS if "405B" in row["model"]], ids=lambda row: row["model"])
def test_llama_3_is_laid_out_as_it_was(row: dict[str, str]):
    spec, given = published(row)
    job = job_of(spec, context=int(row["seq_len"]), rows=int(row["global_batch_seqs"]))
    found = fastest(job, devices=int(row["gpus"]))[0].layout
    assert (found.dp, found.tp, found.pp, found.cp) == (given.dp, given.tp, given.pp, given.cp)


SMALL = job_of(LLAMA, context=LLAMA.context, rows=64)


def test_what_is_shared_is_smaller_by_as_much():
    alone = lay(SMALL, Layout())
    every = ("weights", "gradients", "optimizer", "activations", "logits")
    for layout_of_two, shared in ((Layout(tp=2), every), (Layout(cp=2), ("activations", "logits"))):
        two = lay(SMALL, layout_of_two)
        for name in every:
            whole, part = (getattr(laid, f"{name}_bytes") for laid in (alone, two))
            assert part == pytest.approx(whole / 2 if name in shared else whole, abs=1)
    states = [lay(SMALL, Layout(dp=4, zero=stage)) for stage in (0, 1, 2)]
    assert [laid.weights_bytes for laid in states] == [alone.weights_bytes] * 3
    assert [laid.gradients_bytes for laid in states] == [alone.gradients_bytes] * 2 + [round(alone.gradients_bytes / 4)]
    assert [laid.optimizer_bytes for laid in states[1:]] == [round(alone.optimizer_bytes / 4)] * 2


def test_a_pipeline_waits_for_its_first_and_its_last_micro_batch():
    slow = replace(SMALL, device=replace(H100, link_bytes_per_second=1e18, network_bytes_per_second=1e18))
    layers = len(LLAMA.layers)
    for rounds in (1, 2):
        laid = lay(slow, Layout(pp=2, rounds=rounds))
        if 2 * rounds <= layers:
            assert laid.bubble_share == pytest.approx((1 / rounds) / (64 + 1 / rounds), rel=0.05)
    assert lay(slow, Layout()).bubble_share == lay(slow, Layout()).exchange_seconds == 0


def test_recomputing_takes_time_and_gives_memory():
    none, selective, full = (lay(SMALL, Layout(recompute=what)) for what in ("none", "selective", "full"))
    assert none.step_seconds < selective.step_seconds < full.step_seconds
    assert lay(SMALL, Layout(micro=8)).activations_bytes == pytest.approx(8 * none.activations_bytes, rel=1e-6)


def test_the_fastest_comes_first_and_fits():
    every = fastest(SMALL, devices=8)
    assert all(laid.fits and laid.layout.devices == 8 for laid in every)
    assert [laid.step_seconds for laid in every] == sorted(laid.step_seconds for laid in every)
    tiny = replace(SMALL, device=replace(H100, memory_bytes=2**20))
    (least,) = fastest(tiny, devices=8)
    assert not least.fits


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dp=4,tq=2", "has no size 'tq'; "),
        ("dp=x", "has dp='x'; expected a whole number above 0"),
        ("dp=0", "has dp='0'; expected a whole number above 0"),
        ("recompute=some", "recompute='some' is unknown; choose from none, selective, full"),
        ("dp=4,tp=4", "takes 16 devices, and there are 8"),
        ("dp=2,tp=4,zero=4", "zero=4 is no stage of ZeRO"),
        ("dp=1,tp=8", r"tp=8 does not divide \d heads; choose a divisor"),
        ("pp=8", "pp=8 is more stages than 3 layers; choose fewer"),
        ("dp=8,micro=48", "micro=48 does not divide the .* rows of a step"),
    ],
)
def test_layouts_that_cannot_be_are_refused(text: str, says: str):
    with pytest.raises(ConfigError, match=says):
        plan(LLAMA, on="8xH100", layout=text, batch_tokens=64 * LLAMA.context)


def test_a_plan_of_several_devices_says_how_they_share_and_what_it_costs():
    made = plan(LLAMA, on="8xA100", tokens=1e9, region="FR", batch_tokens=64 * LLAMA.context)
    assert made.devices == 8 and made.layout is not None
    parts = ("weights", "gradients", "optimizer", "activations", "logits", "process")
    assert made.peak_bytes == pytest.approx(sum(getattr(made, f"{name}_bytes") for name in parts), abs=3)
    hours = 8 * made.train_seconds / 3600
    assert made.cost_usd == pytest.approx(hours * 1.95) and made.energy_kwh == pytest.approx(hours * 0.4)
    assert made.co2_kg == pytest.approx(hours * 0.4 * 0.056039)
    dearer = plan(LLAMA, on="8xA100", tokens=1e9, batch_tokens=64 * LLAMA.context, usd_per_hour=3.9, watts=200)
    assert dearer.cost_usd == pytest.approx(hours * 3.9) and dearer.energy_kwh == pytest.approx(hours * 0.2)
    assert dearer.co2_kg is None
    assert "8 x A100-SXM-80GB" in str(made) and "layout" in str(made) and "cost" in str(made)
    for on, says in (("8xM2-Max", "nobody says how fast M2-Max reaches another device"),):
        with pytest.raises(ConfigError, match=says):
            plan(LLAMA, on=on)


def test_a_plan_for_one_device_that_is_not_here_rehearses_its_ways():
    here, there = (plan(LLAMA, rows=2, on=on, precision="fp32") for on in ("this", "H100"))
    assert there.params == here.params and there.train_flops_per_token == here.train_flops_per_token
    assert (there.process_bytes, there.slack_bytes, there.layout, there.devices) == (0, 0, None, 1)
    assert there.tokens_per_second > here.tokens_per_second


def test_a_row_takes_less_time_among_others_and_as_much_memory():
    alone, among = (SMALL.among(rows)[0] for rows in (1, MANY))
    assert alone == SMALL.each and among.forward_seconds < alone.forward_seconds
    assert among.kept_bytes == pytest.approx(alone.kept_bytes, rel=0.02) and among.params == alone.params
    whole = sum(part.count * works_seconds(part.forward, SMALL.machine) for part in SMALL.many if part.name == "layer")
    assert MANY * SMALL.layers * among.forward_seconds == pytest.approx(whole)
    assert replace(SMALL, many=()).among(MANY) == (SMALL.each, SMALL.ends)


def mixture(experts: int = 8) -> Job:
    job = job_of(
        mixtral(width=32, layers=2, heads=4, kv_heads=2, hidden=48, experts=experts, active=2, vocab=96, context=64),
        context=64,
        rows=64,
    )
    found = Experts.of(
        mixtral(width=32, layers=2, heads=4, kv_heads=2, hidden=48, experts=experts, active=2, vocab=96, context=64)
    )
    return replace(job, experts=found)


def test_experts_are_counted_by_hand():
    found = mixture().experts
    assert found is not None
    assert (found.count, found.active, found.share) == (8, 2, 1.0)
    assert found.params == 8 * 3 * 32 * 48  # gate, up and down of each
    assert Experts.of(LLAMA) is None


def test_replicas_that_share_experts_hold_fewer_and_exchange_tokens():
    job = mixture()
    assert job.experts is not None
    apart, shared = (lay(job, Layout(dp=4, ep=ep, zero=0)) for ep in (1, 4))
    experts = job.layers * job.experts.params
    assert apart.weights_bytes - shared.weights_bytes == pytest.approx(2 * experts * 3 / 4, abs=2)
    assert apart.gradients_bytes - shared.gradients_bytes == pytest.approx(4 * experts * 3 / 4, abs=2)
    # Dispatch and return, forward and backward: tokens x active x width x 2 bytes, three quarters of them elsewhere.
    moved = 4 * job.layers * 64 * 2 * 32 * 2 * 3 / 4 * 16  # of the 16 micro-batches of one row
    rate = parallel.REACHED * (H100.link_bytes_per_second or 0)
    late = lay(job, Layout(dp=4, ep=4, zero=0)).exchange_seconds - moved / rate
    assert late >= -1e-12 and shared.exchange_seconds > apart.exchange_seconds - 1e-12


def test_every_stage_of_zero_shares_experts_among_those_that_hold_the_same():
    job = mixture()
    assert job.experts is not None
    one, two = (lay(job, Layout(dp=8, ep=ep, zero=1)) for ep in (1, 4))
    assert one.optimizer_bytes == pytest.approx(two.optimizer_bytes, abs=2)  # an eighth of all, either way


def test_a_mixture_that_is_too_large_for_each_device_is_laid_out_with_shared_experts():
    made = plan("mixtral-8x7b", on="64xH100", tokens=1e12)
    assert made.fits and made.layout is not None
    with pytest.raises(ConfigError, match="ep=3 does not divide the 8 experts of a layer and the dp=8 replicas"):
        plan("mixtral-8x7b", on="8xH100", layout="dp=8,ep=3", batch_tokens=2**20)
    with pytest.raises(ConfigError, match="ep=2 does not divide the 1 experts"):
        plan(LLAMA, on="8xH100", layout="dp=8,ep=2", batch_tokens=64 * LLAMA.context)


def test_hosts_take_the_state_and_time():
    here, away = (lay(SMALL, Layout(dp=2, offload=where)) for where in (0, 1))
    assert away.optimizer_bytes == 0 < here.optimizer_bytes and away.peak_bytes < here.peak_bytes
    params = SMALL.layers * SMALL.each.params + SMALL.ends.params
    assert away.update_seconds == pytest.approx(
        offload.seconds(H100, params=params / 2, bytes_each=parallel.SENT_BYTES, sharing=2)
    )
    with pytest.raises(ConfigError, match="offload=2 is neither 0"):
        plan(LLAMA, on="8xH100", layout="dp=8,offload=2", batch_tokens=64 * LLAMA.context)


@pytest.mark.slow
def test_runners_up_say_why_they_lost():
    made = plan("llama-3.1-405b", tokens=15e12, on="16384xH100", layout="auto")
    assert made.runners_up and made.layout is not None
    for other in made.runners_up:
        laid = plan("llama-3.1-405b", tokens=15e12, on="16384xH100", layout=other.layout, ways="none")
        assert (laid.step_seconds, laid.peak_bytes, laid.fits) == (other.step_seconds, other.peak_bytes, other.fits)
        if other.fits:
            percent = f"{100 * (other.step_seconds / made.step_seconds - 1):.0f}%"
            assert other.step_seconds >= made.step_seconds and percent in other.why
            assert "slower: " in other.why
        else:
            assert other.why.startswith("needs ") and " of 80.0 GiB" in other.why
            assert other.step_seconds < made.step_seconds
    shapes = {layout.parse(other.layout).shape for other in made.runners_up if other.fits}
    assert len(shapes) == sum(other.fits for other in made.runners_up)
    assert layout.Layout(**made.layout).shape not in shapes
    assert "layouts that lost:" in str(made) and made.to_dict()["runners_up"][0]["why"] == made.runners_up[0].why


def test_an_unchanged_setting_is_kept_in_every_layout_that_is_tried():
    every = search(SMALL, devices=8, micro=2, recompute="full", offload=True)
    assert {(laid.layout.micro, laid.layout.recompute, laid.layout.offload) for laid in every} == {(2, "full", 1)}


def test_encoders_and_encoder_decoders_are_laid_out_too():
    both = t5(width=32, layers=2, decoder_layers=3, heads=2, head_width=16, hidden=64, vocab=96)
    for spec in (both, "bert-base"):
        made = plan(spec, on="8xH100", context=64, batch_tokens=64 * 64)
        assert made.devices == 8 and made.fits and made.layout is not None
    alone, two = (plan(both, on="8xH100", context=64, batch_tokens=4096, layout=how) for how in ("dp=8", "dp=4,tp=2"))
    assert two.activations_bytes < alone.activations_bytes


def test_several_devices_without_published_figures_are_refused():
    with pytest.raises(ConfigError, match="nobody says how fast"):
        plan(LLAMA, on="8xM2-Max")
