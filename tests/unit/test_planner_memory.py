from __future__ import annotations

from typing import Any

from groundup.planner.memory import LOADED_BYTES, PROCESS_BYTES, SLACK_SHARE, training_memory
from groundup.planner.rehearsal import Part


def part(name, **bytes_) -> Part:
    figures: dict[str, Any] = dict.fromkeys(
        ("gradient", "optimizer", "kept", "cast", "forward_peak", "backward_peak", "backward_net", "update_peak"), 0
    )
    figures |= bytes_
    return Part(name=name, count=2 if name == "layer" else 1, forward=(), backward=(), update=(),
                **{f"{key}_bytes": value for key, value in figures.items()})  # fmt: skip


PROGRAM = 2**30
# Two layers keep 100 each, of which 10 are copies; the loss needs 50 at once and keeps 5.
STEP = (
    part("embed", gradient=20, optimizer=40, kept=10, forward_peak=10, backward_peak=30, backward_net=10),
    part("layer", gradient=30, optimizer=60, kept=100, cast=10, forward_peak=110, backward_peak=20, backward_net=-70),
    part("norm", kept=4, forward_peak=6, backward_peak=3, backward_net=-4),
    part("loss", gradient=20, optimizer=40, kept=5, forward_peak=50, backward_peak=25, backward_net=11, update_peak=7),
)


def test_peak_is_the_largest_sum_on_the_walk():
    memory = training_memory(STEP, process_bytes=PROGRAM)
    assert memory.moment == "loss"
    assert memory.step_bytes == 10 + 2 * 100 + 4 + 50
    assert memory.weights_bytes == memory.gradients_bytes == 20 + 2 * 30 + 20
    assert memory.optimizer_bytes == 40 + 2 * 60 + 40
    assert (memory.copies_bytes, memory.activations_bytes, memory.logits_bytes) == (20, 194, 50)
    assert memory.slack_bytes == round(SLACK_SHARE["cpu"] * (100 + 200 + 264))
    assert memory.peak_bytes == PROGRAM + LOADED_BYTES + 100 + 200 + 264 + memory.slack_bytes


def test_gradients_of_earlier_micro_batches_are_there_all_along():
    once, twice = (training_memory(STEP, accumulate=n) for n in (1, 2))
    assert twice.step_bytes == once.step_bytes + 100


def test_update_can_be_the_worst_moment():
    greedy = (*STEP[:-1], part("loss", gradient=20, kept=5, backward_net=15, update_peak=900))
    assert training_memory(greedy).moment == "update"


def test_program_is_at_least_what_training_loads():
    assert training_memory(STEP, process_bytes=5).process_bytes == PROCESS_BYTES["cpu"]


def test_devices_of_their_own_memory_do_not_count_the_program():
    memory = training_memory(STEP, device="cuda")
    assert (memory.process_bytes, memory.slack_bytes) == (0, 0)
