"""How long a training step takes on a machine: every operation of the rehearsed step at the machine's rates.

    seconds = sum over operations of  launch + max(flops / rate(size), moved bytes / stream, numbers / special)

It is a roofline (Williams et al. 2009, doi:10.1145/1498765.1498785) whose roofs were measured with the same kernels.
Products and attention take the rate of the samples of nearest size. Tensors are taken to come from memory, not from
a cache: a step's activations are larger than caches. Data loading and saving are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache

from groundup.planner.benchmark import Sample
from groundup.planner.machine import Machine
from groundup.planner.phantom import VIEW, Work
from groundup.planner.rehearsal import Part, Works

# How much longer operations take one after the other in a step than each alone, its inputs near at hand, and a machine
# has slower moments than the fastest ones that its rates are from. The median of 48 runs of bench/plan_error.py on two
# shared Zen 5 cores (torch 2.13).
IN_A_STEP = 1.08


def step_seconds(parts: Iterable[Part], machine: Machine, *, accumulate: int = 1, slower: float = IN_A_STEP) -> float:
    """Returns the time of a step: forward and backward of each micro-batch, then clipping and the update.

    Args:
        parts: the rehearsed micro-step.
        machine: where it runs.
        accumulate: micro-batches in a step.
        slower: by how much operations take longer in a step than at the machine's rates.
    """
    each = update = 0.0
    for part in parts:
        each += part.count * (works_seconds(part.forward, machine) + works_seconds(part.backward, machine))
        update += part.count * works_seconds(part.update, machine)
    return slower * (accumulate * each + update)


def works_seconds(works: Works, machine: Machine) -> float:
    """Returns the time of operations."""
    return sum(times * seconds(work, machine) for work, times in works)


@lru_cache(maxsize=4096)
def seconds(work: Work, machine: Machine) -> float:
    """Returns the time of one operation."""
    launch = 1 / _rate(machine, "launch", "", ())
    if work == VIEW:
        return launch
    moving = work.moved_bytes / _rate(machine, "stream", "", ())
    return launch + max(moving, _computing(work, machine))


def _computing(work: Work, machine: Machine) -> float:
    if "attention" in work.name:
        name = "attention_backward" if work.name.endswith("_backward") else "attention"
        return work.flops / _rate(machine, name, work.dtype, work.size)
    if work.name in ("recurrent", "recurrent_backward") and any(work.name == one.name for one in machine.samples):
        return work.flops / _rate(machine, work.name, work.dtype, ())
    if work.flops:
        return work.flops / _rate(machine, "product", work.dtype, work.size)
    special = _SPECIALS.get(work.name.strip("_").removesuffix("_backward_data").removesuffix("_backward"))
    return work.elements / _rate(machine, special, work.dtype, ()) if special else 0.0


# ATen's functions that compute more than they move, by the sample that stands for them.
_SPECIALS = {
    **dict.fromkeys(("exp", "tanh", "sigmoid", "cos", "sin", "log", "erf", "softplus"), "exp"),
    **dict.fromkeys(("softmax", "log_softmax", "logsumexp"), "softmax"),
    "silu": "silu",
    "gelu": "gelu",
}


@lru_cache(maxsize=4096)
def _rate(machine: Machine, name: str, dtype: str, size: tuple[int, ...]) -> float:
    """The rate of the samples of this name: their mean in logarithms, the nearest sizes weighing most."""
    every = [sample for sample in machine.samples if sample.name == name]
    fitting = [sample for sample in every if sample.dtype == dtype] or every
    weights = [1 / (_distance(sample, size) + 1e-3) ** 4 for sample in fitting]
    logs = (w * math.log(sample.per_second) for w, sample in zip(weights, fitting, strict=True))
    return math.exp(sum(logs) / sum(weights))


def _distance(sample: Sample, size: tuple[int, ...]) -> float:
    """How far sizes are apart in logarithms, that of the smallest counting three times: it decides what kernels do."""
    return math.dist(
        *([*map(math.log, numbers), 3 * math.log(min(numbers, default=1))] for numbers in (sample.size, size))
    )
