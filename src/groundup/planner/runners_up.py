"""Why the layouts that were not chosen lost: the best of each other shape, and what it is slower by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from groundup.planner import units
from groundup.planner.hardware import Device
from groundup.planner.parallel import Laid

MOST = 3  # that are told of
TIE = 0.005  # of the time of a step, below which two are as fast


@dataclass(frozen=True, kw_only=True)
class RunnerUp:
    """A layout of another shape than the chosen one.

    Attributes:
        layout: its sizes, as ``--layout`` takes them.
        step_seconds: of a step.
        peak_bytes: of the fullest device.
        fits: whether that is no more than the device has.
        why: it lost.
    """

    layout: str
    step_seconds: float
    peak_bytes: int
    fits: bool
    why: str

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.layout}: {self.why}"


def runners_up(every: Sequence[Laid], device: Device) -> tuple[RunnerUp, ...]:
    """Returns the best layouts of other shapes than the first one's, and the fastest that would not fit.

    Args:
        every: in the order of `groundup.planner.layout.search`.
        device: on which they are.
    """
    if not every[0].fits:
        return ()
    best = every[0]
    return tuple(
        RunnerUp(
            layout=laid.layout.short,
            step_seconds=laid.step_seconds,
            peak_bytes=laid.peak_bytes,
            fits=laid.fits,
            why=_why(laid, best, device),
        )
        for laid in _losers(every)
    )


def _losers(every: Sequence[Laid]) -> Iterator[Laid]:
    best, seen = every[0], {every[0].layout.shape}
    for laid in every:
        if laid.fits and laid.layout.shape not in seen and len(seen) < MOST:
            seen.add(laid.layout.shape)
            yield laid
    faster = [laid for laid in every if not laid.fits and laid.step_seconds < best.step_seconds]
    if faster:
        yield min(faster, key=lambda laid: laid.peak_bytes)


def _why(laid: Laid, best: Laid, device: Device) -> str:
    if not laid.fits:
        faster = 1 - laid.step_seconds / best.step_seconds
        need, there = units.bytes_(laid.peak_bytes), units.bytes_(device.memory_bytes)
        return f"needs {need} of {there}; it would be {units.percent(faster)} faster"
    slower = laid.step_seconds / best.step_seconds - 1
    if slower < TIE:
        return f"as fast to {units.percent(TIE)}; {_reason(laid, best)}"
    return f"{units.percent(slower)} slower: {_reason(laid, best)}"


def _reason(laid: Laid, best: Laid) -> str:
    """The part of the step that grew most."""
    grown = {
        "bubble": laid.bubble_share * laid.step_seconds - best.bubble_share * best.step_seconds,
        "exchange": laid.exchange_seconds - best.exchange_seconds,
        "compute": laid.compute_seconds - best.compute_seconds,
        "update": laid.update_seconds - best.update_seconds,
    }
    worst = max(grown, key=lambda name: grown[name])
    if worst == "bubble":
        return f"bubble {units.percent(laid.bubble_share)} instead of {units.percent(best.bubble_share)}"
    if worst == "compute" and laid.layout.recompute != best.layout.recompute:
        return f"recompute={laid.layout.recompute} instead of {best.layout.recompute}, to fit"
    what = {"exchange": "waits for other devices", "compute": "operations take", "update": "the update takes"}[worst]
    now, then = (units.duration(getattr(one, f"{worst}_seconds")) for one in (laid, best))
    return f"{what} {now} instead of {then}"
