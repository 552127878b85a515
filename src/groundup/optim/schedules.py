"""How the learning rate moves over a run: pure functions of how much of the run is spent.

    lr = peak * factor(progress),   progress in [0, 1]

Progress is counted in whatever the run is budgeted in: steps, tokens or seconds; a schedule does not know which, and
a run that is stopped by the clock needs no guess of its number of steps. The fairest progress of a step is that of
its middle, (step + 0.5) / steps: then neither the first step of the warm-up nor the last of the decay is spent at a
rate of zero. Warm-up and decay are shares of the run: 2,000 of 100,000 steps are 0.02.
"""

from __future__ import annotations

import math

from groundup.errors import SpecError
from groundup.specs import Share, ShareBelowOne, Spec


class Schedule(Spec, abstract=True):
    """How the learning rate moves over a run.

    Attributes:
        warmup: share of the run in which the rate rises linearly from zero to its peak.
    """

    warmup: ShareBelowOne = 0.01

    def factor(self, progress: float) -> float:
        """Returns the share of the peak rate to use when ``progress`` in [0, 1] of the run is spent.

        Progress beyond 1 counts as 1: a run that is stopped by the clock may overrun by part of a step.
        """
        if progress < self.warmup:
            return max(progress, 0.0) / self.warmup
        return self.after_warmup(min(progress, 1.0))

    def after_warmup(self, progress: float) -> float:
        """Returns the factor at ``progress`` in [warmup, 1]."""
        raise NotImplementedError(type(self).__name__)


class Constant(Schedule):
    """Warm-up, then the peak rate to the end."""

    def after_warmup(self, progress: float) -> float:
        """Returns 1."""
        return 1.0


class Cosine(Schedule):
    """Warm-up, then half a cosine from the peak to ``final`` of it (Loshchilov and Hutter 2017, arXiv:1608.03983).

    A final factor of 0.1 is that of GPT-3 (Brown et al. 2020, arXiv:2005.14165, appendix B).
    """

    final: Share = 0.1

    def after_warmup(self, progress: float) -> float:
        """Returns the factor at ``progress`` in [warmup, 1]."""
        done = (progress - self.warmup) / (1.0 - self.warmup)
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * done))


class WSD(Schedule):
    """Warm-up, stable, decay: the peak rate until the last ``decay`` of the run, then a line to ``final`` of it.

    Hu et al. 2024 (MiniCPM, arXiv:2404.06395, section 4); the linear decay over a fifth of the run is that of
    Hägele et al. 2024 (arXiv:2405.18392). Any checkpoint of the stable part can be decayed or trained on.
    """

    decay: Share = 0.2
    final: Share = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup + self.decay > 1.0:
            raise SpecError(
                f"warmup={self.warmup} and decay={self.decay} together are longer than the run; "
                "choose shares whose sum is at most 1"
            )

    def after_warmup(self, progress: float) -> float:
        """Returns the factor at ``progress`` in [warmup, 1]."""
        left = 1.0 - progress
        if left >= self.decay:
            return 1.0
        return self.final + (1.0 - self.final) * left / self.decay
