"""A step as it is planned: its micro-batches, what they hold and how long they take, on one device or on several."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from groundup.errors import ConfigError
from groundup.model.model import Model
from groundup.objectives.objective import Shape
from groundup.optim.optimizers import Optimizer
from groundup.planner import books, offload, recompute
from groundup.planner import layout as layouts
from groundup.planner.hardware import USABLE_SHARE
from groundup.planner.layout import Job, Laid, Layout, job_of, lay, search
from groundup.planner.memory import Memory, training_memory
from groundup.planner.published import Recompute
from groundup.planner.rehearsal import Part, rehearse
from groundup.planner.runners_up import RunnerUp, runners_up
from groundup.planner.site import Site
from groundup.planner.time import step_seconds

STREAM_BYTES = 4  # of a number in the stream between layers: float32
EXCHANGED_BYTES = 8  # of a gradient and a weight, float32, that go to the host and come from it


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step as it is planned.

    Attributes:
        micro: rows of a micro-batch.
        accumulate: micro-batches of a step, on each group of devices that holds the model.
        rows: of a step.
        seconds: that it takes.
        memory: that it holds.
        fits: whether that fits.
        layout: how devices share it; None for one device.
        job: what they share; None for one device.
        checkpointing: what layers make again in the backward.
        offload: whether the optimizer's state lies on the host.
        runners_up: the next best layouts.
    """

    micro: int
    accumulate: int
    rows: int
    seconds: float
    memory: Memory | Laid
    fits: bool
    layout: Layout | None = None
    job: Job | None = None
    checkpointing: str = "none"
    offload: bool = False
    runners_up: tuple[RunnerUp, ...] = ()

    def figures(self) -> dict[str, Any]:
        """Returns what a plan says of it."""
        names = ("weights", "gradients", "optimizer", "copies", "activations", "logits", "process", "slack", "peak")
        held = {f"{name}_bytes": getattr(self.memory, f"{name}_bytes", 0) for name in names}
        layout = None if self.layout is None else asdict(self.layout)
        names = ("accumulate", "fits", "checkpointing", "offload", "runners_up")
        return held | {"micro_batch": self.micro, "layout": layout} | {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class Rehearsed:
    """A model's step, rehearsed as often as it takes to choose its rows.

    Attributes:
        spec: the model.
        shape: of a row.
        dtype: of the matrix products.
        optimizer: what updates the weights.
        site: where it runs.
        wanted_tokens: of a step, before they are rounded to whole micro-batches.
        rows: of a micro-batch; None means as many as fit.
        process_bytes: what the program holds before it trains; None means a bare training process.
        checkpointing: what layers make again in the backward; None means nothing on one device, and what is fastest on
            several.
        offload: whether the optimizer's state lies on the host.
    """

    spec: Model
    shape: Shape
    dtype: torch.dtype
    optimizer: Optimizer
    site: Site
    wanted_tokens: float
    rows: int | None
    process_bytes: int | None
    checkpointing: Recompute | None
    offload: bool

    def step(self, layout: str) -> Step:
        """Returns the step.

        Args:
            layout: how several devices share it, or ``auto``.

        Raises:
            ConfigError: the layout is not one of these devices, or nothing can be offloaded here.
        """
        if self.offload:
            offload.check(self.site.device, self.optimizer)
        return self._alone(layout) if self.site.devices == 1 else self._shared(layout)

    @property
    def useful_rows(self) -> int:
        """A power of two: more rows in a micro-batch, on one device, make no product faster."""
        tokens = min(int(self.wanted_tokens), self.site.most_tokens)
        return 2 ** int(math.log2(max(1, tokens // self.shape.text)))

    def parts(self, *, rows: int) -> tuple[Part, ...]:
        """Returns the parts of a micro-batch as groundup runs them."""
        device = self.site.machine.device
        return rehearse(
            self.spec, rows=rows, shape=self.shape, dtype=self.dtype, optimizer=self.optimizer, device=device
        )

    def _alone(self, layout: str) -> Step:
        taken = 1 if layout == "auto" else layouts.parse(layout).devices
        if taken != 1:
            raise ConfigError(
                f"layout={layout!r} takes {taken:,} devices, and there is 1; name more, as in --on 8xH100"
            )
        machine, tokens = self.site.machine, self.shape.text
        micro = self.rows or self._most_rows()
        accumulate = max(1, round(self.wanted_tokens / (micro * tokens)))
        memory = self._memory(micro, accumulate=accumulate)
        seconds = step_seconds(self._parts(rows=micro), machine, accumulate=accumulate, slower=self.site.slower)
        if self.offload:
            assert self.site.device is not None
            params = books.params(self.spec)
            seconds += offload.seconds(self.site.device, params=params, bytes_each=EXCHANGED_BYTES)
        return Step(
            micro=micro,
            accumulate=accumulate,
            rows=micro * accumulate,
            seconds=seconds,
            memory=memory,
            fits=memory.peak_bytes <= USABLE_SHARE * machine.memory_bytes,
            checkpointing=self.checkpointing or "none",
            offload=self.offload,
        )

    def _parts(self, *, rows: int) -> tuple[Part, ...]:
        """The parts on one device, with what is made again and what lies elsewhere."""
        spec, shape = self.spec, self.shape
        lengths = (shape.ids if stack is spec.predictor else shape.source for stack in spec.stacks.values())
        widths = (stack.carried for stack in spec.stacks.values())
        streams = [STREAM_BYTES * rows * tokens * width for tokens, width in zip(lengths, widths, strict=True)]
        parts = recompute.played_again(self.parts(rows=rows), self.checkpointing or "none", stream_bytes=streams)
        return offload.offloaded(parts) if self.offload else parts

    def _memory(self, rows: int, *, accumulate: int = 2, replaying: bool = True) -> Memory:
        planned = training_memory(
            self._parts(rows=rows),
            device=self.site.machine.device,
            accumulate=accumulate,
            process_bytes=self.process_bytes,
            replaying=replaying,
        )
        return self.site.correction.memory(planned)

    def _most_rows(self) -> int:
        """The largest power of two that fits and is of use; 1 where nothing fits."""
        usable = USABLE_SHARE * self.site.machine.memory_bytes
        rows = self._by_walk(self.useful_rows, usable=usable)
        while rows > 1 and self._memory(rows).peak_bytes > usable:
            rows //= 2
        return rows

    def _by_walk(self, most: int, *, usable: float) -> int:
        """The largest power of two that fits where the allocator takes its usual share."""
        peak = self._memory(most, replaying=False).peak_bytes
        if most == 1 or peak <= usable:
            return most
        least = self._memory(1, replaying=False).peak_bytes
        # Memory grows in a straight line with the rows.
        room = 1 + (usable - least) * (most - 1) / (peak - least)
        return 2 ** int(math.log2(max(room, 1)))

    def _shared(self, layout: str) -> Step:
        site = self.site
        if site.device is None:
            raise ConfigError("several devices are planned by what is published of them; name one, such as 8xH100")
        job = job_of(
            self.spec, self.parts, site.device, machine=site.machine, shape=self.shape, wanted=self.wanted_tokens
        )
        others: tuple[RunnerUp, ...] = ()
        if layout == "auto":
            every = search(
                job,
                devices=site.devices,
                micro=self.rows,
                recompute=self.checkpointing,
                offload=self.offload or None,
            )
            laid, others = every[0], runners_up(every, job.device)
        else:
            chosen = self._as_asked(layouts.parse(layout))
            layouts.check(job, chosen, devices=site.devices)
            laid = lay(job, chosen)
        return Step(
            micro=laid.layout.micro,
            accumulate=job.rows // (laid.layout.dp * laid.layout.micro),
            rows=job.rows,
            seconds=laid.step_seconds,
            memory=laid,
            fits=laid.fits,
            layout=laid.layout,
            job=job,
            checkpointing=laid.layout.recompute,
            offload=bool(laid.layout.offload),
            runners_up=others,
        )

    def _as_asked(self, layout: Layout) -> Layout:
        """The layout, with what was given besides."""
        given: dict[str, Any] = {"micro": self.rows, "recompute": self.checkpointing, "offload": self.offload or None}
        return replace(layout, **{name: value for name, value in given.items() if value is not None})
