from __future__ import annotations

from dataclasses import replace

import pytest

from groundup.planner.benchmark import Sample
from groundup.planner.phantom import VIEW, Work
from groundup.planner.time import IN_A_STEP, seconds, step_seconds
from unit.planner_stand_in import MACHINE
from unit.test_planner_memory import part

LAUNCH = 1e-6  # of MACHINE, as are the rates below


def test_products_take_their_operations_at_the_matrix_rate_of_their_type():
    work = Work(name="mm", dtype="bfloat16", size=(512, 512, 512), flops=2 * 512**3, moved_bytes=3 * 2 * 512**2)
    assert seconds(work, MACHINE) == pytest.approx(LAUNCH + 2 * 512**3 / 2e11)
    assert seconds(replace(work, dtype="float32"), MACHINE) == pytest.approx(LAUNCH + 2 * 512**3 / 1e11)


def test_thin_products_are_bound_by_memory():
    work = Work(name="mm", dtype="bfloat16", size=(1, 4096, 4096), flops=2 * 4096**2, moved_bytes=2 * 4096**2)
    assert seconds(work, MACHINE) == pytest.approx(LAUNCH + 2 * 4096**2 / 2e10)


def test_nearer_sizes_weigh_more():
    slow = Sample("product", "bfloat16", (64, 64, 64), 1e10)
    machine = replace(MACHINE, samples=(*MACHINE.samples, slow))
    rates = [
        2 * n**3 / seconds(Work(name="mm", dtype="bfloat16", size=(n, n, n), flops=2 * n**3), machine)
        for n in (64, 128, 512)
    ]
    assert rates == sorted(rates)
    assert rates[0] < 1.1e10


def test_other_operations_take_their_bytes_or_their_numbers_whichever_is_slower():
    assert seconds(Work(name="mul", moved_bytes=2 * 10**7), MACHINE) == pytest.approx(LAUNCH + 1e-3)
    gelu = Work(name="gelu_backward", dtype="bfloat16", elements=10**7, moved_bytes=6 * 10**7)
    assert seconds(gelu, MACHINE) == pytest.approx(LAUNCH + 1e-2)
    assert seconds(VIEW, MACHINE) == pytest.approx(LAUNCH)


def test_attention_has_rates_of_its_own_both_ways():
    name = "blocked_attention"
    forward = Work(name=name, dtype="bfloat16", size=(256, 256), flops=10**9)
    backward = replace(forward, name=f"{name}_backward", flops=2 * 10**9)
    assert seconds(forward, MACHINE) == pytest.approx(LAUNCH + 1 / 50)
    assert seconds(backward, MACHINE) == pytest.approx(LAUNCH + 2 / 40)


def test_step_repeats_micro_batches_but_not_the_update():
    mul = ((Work(name="mul", moved_bytes=2 * 10**10 - 20000), 1),)  # one second, launch included
    layer = replace(part("layer"), forward=mul, backward=mul * 2, update=mul)  # two copies
    assert step_seconds([layer], MACHINE, accumulate=1) == pytest.approx(IN_A_STEP * (2 * 3 + 2))
    assert step_seconds([layer], MACHINE, accumulate=4) == pytest.approx(IN_A_STEP * (4 * 2 * 3 + 2))
