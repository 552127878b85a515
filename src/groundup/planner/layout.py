"""The layout of a step over many devices: which ones are possible, and which of them is the fastest that fits.

groundup runs on one device yet. What a layout takes is told by the field's formulas, see parallel.py. No layout
changes the mathematics of a run: its rows, its updates and its weights stay what they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import get_args

from groundup.errors import ConfigError
from groundup.planner.job import Experts, Job, job_of
from groundup.planner.parallel import Laid, lay
from groundup.planner.published import Recompute
from groundup.planner.shares import Layout, parse

__all__ = ["Experts", "Job", "Laid", "Layout", "check", "fastest", "job_of", "lay", "parse", "search"]

LONG_CONTEXT = 2**15  # tokens of a row from which on ranks share it
WIDEST = 16  # context ranks
MICRO = (1, 2, 4, 8)  # rows of a micro-batch that are tried
ROUNDS = (1, 2, 4)
FEW_DEVICES = 64  # up to which the hosts' memory is tried: more share the state among themselves


def fastest(job: Job, *, devices: int, micro: int | None = None) -> list[Laid]:
    """Returns the layouts of so many devices that fit, the fastest first; where none does, the one that needs least.

    Arguments and errors are those of `search`.
    """
    every = search(job, devices=devices, micro=micro)
    return [laid for laid in every if laid.fits] or every[:1]


def search(
    job: Job,
    *,
    devices: int,
    micro: int | None = None,
    recompute: Recompute | None = None,
    offload: bool | None = None,
) -> list[Laid]:
    """Returns the layouts of so many devices: those that fit, the fastest first, then others, the smallest first.

    Args:
        job: the step.
        devices: how many there are.
        micro: rows of a micro-batch; None means what is fastest.
        recompute: what layers make again; None means what is fastest.
        offload: whether the optimizer's state lies on the hosts; None means what is fastest, on few devices.

    Raises:
        ConfigError: the rows of a step cannot be shared among so many devices.
    """
    options = product(
        _layouts(job, devices=devices, micro=MICRO if micro is None else (micro,)),
        (False, True) if offload is None and devices <= FEW_DEVICES else (bool(offload),),
    )
    every = [
        lay(job, replace(layout, offload=1) if away else layout)
        for layout, away in options
        if recompute in (None, layout.recompute)
    ]
    if not every:
        raise ConfigError(
            f"{job.rows:,} rows of a step cannot be shared among {devices:,} devices; give larger --batch-tokens, or "
            "fewer devices"
        )
    return sorted(every, key=lambda laid: (not laid.fits, laid.step_seconds if laid.fits else laid.peak_bytes))


def check(job: Job, layout: Layout, *, devices: int) -> None:
    """Refuses a layout that cannot be.

    Raises:
        ConfigError: its sizes do not make up the devices, or do not divide what they share.
    """
    if layout.devices != devices:
        raise ConfigError(f"{layout} takes {layout.devices:,} devices, and there are {devices:,}")
    if layout.zero not in (0, 1, 2, 3):
        raise ConfigError(f"zero={layout.zero} is no stage of ZeRO; choose 0, 1, 2 or 3")
    if layout.offload not in (0, 1):
        raise ConfigError(f"offload={layout.offload} is neither 0, the device, nor 1, the host; choose one of them")
    experts = 1 if job.experts is None else job.experts.count
    if experts % layout.ep or layout.dp % layout.ep:
        raise ConfigError(
            f"ep={layout.ep} does not divide the {experts} experts of a layer and the dp={layout.dp} replicas that "
            "share them; choose a divisor of both"
        )
    if job.heads % layout.tp:
        raise ConfigError(f"tp={layout.tp} does not divide {job.heads} heads; choose a divisor")
    if layout.pp * layout.rounds > job.layers:
        raise ConfigError(f"pp={layout.pp} is more stages than {job.layers} layers; choose fewer")
    if job.rows % (layout.dp * layout.micro):
        raise ConfigError(
            f"dp={layout.dp} micro={layout.micro} does not divide the {job.rows:,} rows of a step; change one of them"
        )


def _layouts(job: Job, *, devices: int, micro: Sequence[int]) -> Iterator[Layout]:
    """Yields what is worth trying: tensor ranks inside a node, context ranks for long rows."""
    for tp, pp, cp in _shares(job, devices=devices):
        dp = devices // (tp * pp * cp)
        rounds = [count for count in ROUNDS if pp * count <= job.layers and (pp > 1 or count == 1)]
        rows = [size for size in micro if job.rows % (dp * size) == 0]
        zeros = (1, 3) if dp > 1 else (1,)
        sharing = (1,) if job.experts is None else [ep for ep in _divisors(job.experts.count) if dp % ep == 0]
        for ep, row, count, zero, recompute in product(sharing, rows, rounds, zeros, get_args(Recompute)):
            yield Layout(dp=dp, tp=tp, pp=pp, cp=cp, ep=ep, micro=row, zero=zero, rounds=count, recompute=recompute)


def _shares(job: Job, *, devices: int) -> Iterator[tuple[int, int, int]]:
    """Yields the tensor ranks, the stages and the context ranks that divide the devices."""
    for tp in (size for size in _divisors(devices) if size <= job.device.node and job.heads % size == 0):
        for pp in (size for size in _divisors(devices // tp) if size <= job.layers):
            most = WIDEST if job.context >= LONG_CONTEXT else 1
            yield from ((tp, pp, cp) for cp in _divisors(devices // (tp * pp)) if cp <= most)


def _divisors(number: int) -> list[int]:
    small = [size for size in range(1, int(number**0.5) + 1) if number % size == 0]
    return sorted({*small, *(number // size for size in small)})
