"""How a step is laid out over many devices: what each of them holds, and how long the step takes.

groundup runs on one device yet. A layout is put together by the field's formulas from the parts that it rehearses:

    memory of a device   states of its share of the weights (ZeRO), activations of its layers for the micro-batches that
                         are under way, the loss
    time of a step       (m + (p - 1) / v) micro-batches of a stage: its layers' operations, shared by t tensor and c
                         context ranks, and the exchanges that wait between them; then what of the exchange of weights
                         and gradients the products do not hide, and the update

Sources: Rajbhandari et al. 2019 (ZeRO, arXiv:1910.02054); Narayanan et al. 2021 (arXiv:2104.04473), section 2:
pipelines of p stages, v rounds of them, m micro-batches; Korthikanti et al. 2022 (arXiv:2205.05198): tensor and
sequence parallelism, what is recomputed; Grattafiori et al. 2024 (Llama 3, arXiv:2407.21783), section 3.3: ranks that
share a row's context.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import product
from typing import Any, get_args

from groundup.errors import ConfigError, nearest
from groundup.planner.hardware import Device
from groundup.planner.machine import Machine
from groundup.planner.published import MEGATRON_ADAM, Recompute
from groundup.planner.rehearsal import Part, Works
from groundup.planner.time import works_seconds

REACHED = 0.8  # of a link's or a network's published rate, by the large messages of a step
HIDDEN = 0.7  # of the backward's time, behind which gradients and weights are exchanged
RESERVED_BYTES = 3 * 2**30  # of each device: PyTorch's context, the exchanges' buffers, what the allocator loses
LONG_CONTEXT = 2**15  # tokens of a row from which on ranks share it
WIDEST = 16  # context ranks
MICRO = (1, 2, 4, 8)  # rows of a micro-batch that are tried
ROUNDS = (1, 2, 4)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How devices share the work.

    Attributes:
        dp: replicas, each of which reads rows of its own.
        tp: devices that share each matrix.
        pp: stages of a pipeline of layers.
        cp: devices that share the tokens of a row.
        micro: rows of a micro-batch.
        zero: what replicas share: 1 the optimizer's state, 2 gradients too, 3 weights too (FSDP).
        rounds: how often a micro-batch goes through the pipeline, each time through fewer layers.
        recompute: what layers make again in the backward: ``none``; ``selective``, all but what products of matrices
            make; ``full``, all but their input.
    """

    dp: int = 1
    tp: int = 1
    pp: int = 1
    cp: int = 1
    micro: int = 1
    zero: int = 1
    rounds: int = 1
    recompute: Recompute = "none"

    @property
    def devices(self) -> int:
        """How many devices it takes."""
        return self.dp * self.tp * self.pp * self.cp

    def __str__(self) -> str:
        return ",".join(f"{name}={size}" for name, size in asdict(self).items())


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one layer, or all that is no layer, takes on one device for a row.

    Attributes:
        params: its weights.
        kept_bytes: for the backward, without copies of weights.
        made_bytes: what its products make, in 16 bits. What closes a residual part is added to the stream and not
            kept; in its place stands the stream before the part.
        forward_seconds: of its forward.
        light_seconds: of what in it is no product.
        backward_seconds: of its backward.
        update_seconds: of its weights' update.
    """

    params: float
    kept_bytes: float
    made_bytes: float
    forward_seconds: float
    light_seconds: float
    backward_seconds: float
    update_seconds: float

    @classmethod
    def of(cls, parts: Sequence[Part], machine: Machine, *, share: float = 1.0) -> Figures:
        """Returns the figures of parts together, times a share."""

        def all_of(figure: Callable[[Part], float]) -> float:
            return share * sum(part.count * figure(part) for part in parts)

        return cls(
            params=all_of(lambda part: part.gradient_bytes / 4),
            kept_bytes=all_of(lambda part: part.kept_bytes - part.cast_bytes),
            made_bytes=all_of(lambda part: sum(2 * work.elements * n for work, n in part.forward if work.flops)),
            forward_seconds=all_of(lambda part: works_seconds(part.forward, machine)),
            light_seconds=all_of(lambda part: works_seconds(_light(part.forward), machine)),
            backward_seconds=all_of(lambda part: works_seconds(part.backward, machine)),
            update_seconds=all_of(lambda part: works_seconds(part.update, machine)),
        )


@dataclass(frozen=True, kw_only=True)
class Job:
    """The step that is laid out.

    Attributes:
        parts: of a micro-batch of one row, on one device.
        layers: how many there are.
        width: of the stream.
        heads: the most devices that can share a layer's matrices.
        context: tokens of a row.
        rows: of a step.
        machine: the rates of a device.
        device: its memory and links.
    """

    parts: Sequence[Part]
    layers: int
    width: int
    heads: int
    context: int
    rows: int
    machine: Machine
    device: Device

    @cached_property
    def each(self) -> Figures:
        """What a layer takes, where they differ the mean."""
        layers = [part for part in self.parts if part.name == "layer"]
        return Figures.of(layers, self.machine, share=1 / self.layers)

    @cached_property
    def ends(self) -> Figures:
        """What the embedding, the last norm and the loss take."""
        return Figures.of([part for part in self.parts if part.name != "layer"], self.machine)

    @property
    def logits_bytes(self) -> int:
        """What the loss of a row needs."""
        return next(part.forward_peak_bytes for part in self.parts if part.name == "loss")

    @property
    def row_bytes(self) -> int:
        """The stream of a row, in 16 bits."""
        return 2 * self.context * self.width


@dataclass(frozen=True, kw_only=True)
class Laid:
    """A layout with what it takes on each device.

    Attributes:
        layout: the layout.
        weights_bytes: in 16 bits, layers that are whole for a moment included.
        gradients_bytes: in 32 bits.
        optimizer_bytes: its state, with 32-bit weights.
        activations_bytes: of the micro-batches under way.
        logits_bytes: what the loss needs.
        process_bytes: what is reserved for PyTorch and the exchanges.
        peak_bytes: all of that.
        step_seconds: of a step.
        compute_seconds: of the operations alone.
        bubble_share: of the step, in which a stage waits for its first and after its last micro-batch.
        exchange_seconds: in which products wait for other devices.
        fits: whether the peak is no more than the device has.
    """

    layout: Layout
    weights_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    logits_bytes: int
    process_bytes: int
    peak_bytes: int
    step_seconds: float
    compute_seconds: float
    bubble_share: float
    exchange_seconds: float
    fits: bool


def fastest(job: Job, *, devices: int, micro: int | None = None) -> list[Laid]:
    """Returns the layouts of so many devices that fit, the fastest first; where none does, the one that needs least.

    Args:
        job: the step.
        devices: how many there are.
        micro: rows of a micro-batch; None means what is fastest.

    Raises:
        ConfigError: the rows of a step cannot be shared among so many devices.
    """
    every = [lay(job, layout) for layout in _layouts(job, devices=devices, micro=MICRO if micro is None else (micro,))]
    if not every:
        raise ConfigError(
            f"{job.rows:,} rows of a step cannot be shared among {devices:,} devices; give larger --batch-tokens, or "
            "fewer devices"
        )
    fitting = sorted((laid for laid in every if laid.fits), key=lambda laid: laid.step_seconds)
    return fitting or [min(every, key=lambda laid: laid.peak_bytes)]


def parse(text: str) -> Layout:
    """Returns the layout that a text such as ``dp=64,tp=8,pp=2`` names; what it leaves out is 1.

    Raises:
        ConfigError: a size does not exist or is no whole number above 0.
    """
    known = {field.name: field.default for field in fields(Layout)}
    given: dict[str, Any] = {}
    for item in text.split(","):
        name, _, value = item.partition("=")
        name = name.strip()
        if name not in known:
            hint = nearest(name, known) or f"known: {', '.join(known)}"
            raise ConfigError(f"layout={text!r} has no size {name!r}; {hint}")
        if name in given:
            raise ConfigError(f"layout={text!r} says {name} twice; say it once")
        if name == "recompute":
            given[name] = value
        elif re.fullmatch(r"[0-9]{1,9}", value.strip()) and (name == "zero" or int(value) > 0):
            given[name] = int(value)
        else:
            raise ConfigError(f"layout={text[:80]!r} has {name}={value[:40]!r}; expected a whole number above 0")
    if given.get("recompute", "none") not in get_args(Recompute):
        raise ConfigError(f"recompute={given['recompute']!r} is unknown; choose from {', '.join(get_args(Recompute))}")
    return Layout(**given)


def check(job: Job, layout: Layout, *, devices: int) -> None:
    """Refuses a layout that cannot be.

    Raises:
        ConfigError: its sizes do not make up the devices, or do not divide what they share.
    """
    if layout.devices != devices:
        raise ConfigError(f"{layout} takes {layout.devices:,} devices, and there are {devices:,}")
    if layout.zero not in (0, 1, 2, 3):
        raise ConfigError(f"zero={layout.zero} is no stage of ZeRO; choose 0, 1, 2 or 3")
    if job.heads % layout.tp:
        raise ConfigError(f"tp={layout.tp} does not divide {job.heads} heads; choose a divisor")
    if layout.pp * layout.rounds > job.layers:
        raise ConfigError(f"pp={layout.pp} is more stages than {job.layers} layers; choose fewer")
    if job.rows % (layout.dp * layout.micro):
        raise ConfigError(
            f"dp={layout.dp} micro={layout.micro} does not divide the {job.rows:,} rows of a step; change one of them"
        )


def lay(job: Job, layout: Layout) -> Laid:
    """Returns what a layout takes."""
    layers, batches = -(-job.layers // layout.pp), job.rows // (layout.dp * layout.micro)  # layers of the fullest stage
    params = (layers * job.each.params + job.ends.params / min(layout.pp, 2)) / layout.tp
    held = _held(job, layout, layers=layers, batches=batches, params=params)
    peak = sum(held.values())
    each, shared = job.each, layout.tp * layout.cp
    backward = each.backward_seconds + (each.light_seconds if layout.recompute == "selective" else 0.0)
    passes = 2 if layout.recompute == "full" else 1
    own = layers * (passes * each.forward_seconds + backward)
    outside = (job.ends.forward_seconds + job.ends.backward_seconds) / layout.pp
    computing = layout.micro * (own + outside) / shared
    waiting = layers * ((passes + 1) * 2 * _all_reduce(job, layout) + (passes + 2) * _ring(job, layout))
    bubble = (computing + waiting) * (layout.pp - 1) / layout.rounds
    hiding = HIDDEN * layout.micro * layers * backward / shared * (batches if layout.zero == 3 else 1)
    late = max(0.0, _exchange(job, layout, params, batches) - hiding)
    update = (job.layers * each.update_seconds + job.ends.update_seconds) / layout.devices
    step = batches * (computing + waiting) + bubble + late + update
    return Laid(
        layout=layout,
        **{f"{name}_bytes": round(size) for name, size in held.items()},
        peak_bytes=round(peak),
        step_seconds=step,
        compute_seconds=batches * computing,
        bubble_share=bubble / step,
        exchange_seconds=batches * waiting + late,
        fits=peak <= job.device.memory_bytes,
    )


def _held(job: Job, layout: Layout, *, layers: int, batches: int, params: float) -> dict[str, float]:
    """Returns the bytes that the fullest device holds, by component."""
    weights, gradients, optimizer = MEGATRON_ADAM.apart(params, stage=layout.zero, devices=layout.dp)
    if layout.zero == 3:  # the layer that runs and the one that comes next are whole
        weights += 2 * MEGATRON_ADAM.weights * job.each.params / layout.tp
    each, shared = job.each, layout.tp * layout.cp
    kept = {"none": each.kept_bytes, "selective": min(each.kept_bytes, each.made_bytes), "full": job.row_bytes}
    under_way = float(min(layout.pp, batches))
    if layout.rounds > 1:
        under_way *= 1 + (layout.pp - 1) / (layout.pp * layout.rounds)
    again = 0.0 if layout.recompute == "none" else each.kept_bytes
    return {
        "weights": weights,
        "gradients": gradients,
        "optimizer": optimizer,
        "activations": layout.micro * (layers * kept[layout.recompute] * under_way + again) / shared,
        "logits": layout.micro * job.logits_bytes / shared,
        "process": RESERVED_BYTES,
    }


def _light(works: Works) -> Works:
    """Returns the operations that are no products."""
    return tuple((work, times) for work, times in works if not work.flops)


def _layouts(job: Job, *, devices: int, micro: Sequence[int]) -> Iterator[Layout]:
    """Yields what is worth trying: tensor ranks inside a node, context ranks for long rows."""
    for tp, pp, cp in _shares(job, devices=devices):
        dp = devices // (tp * pp * cp)
        rounds = [count for count in ROUNDS if pp * count <= job.layers and (pp > 1 or count == 1)]
        rows = [size for size in micro if job.rows % (dp * size) == 0]
        zeros = (1, 3) if dp > 1 else (1,)
        for row, count, zero, recompute in product(rows, rounds, zeros, get_args(Recompute)):
            yield Layout(dp=dp, tp=tp, pp=pp, cp=cp, micro=row, zero=zero, rounds=count, recompute=recompute)


def _shares(job: Job, *, devices: int) -> Iterator[tuple[int, int, int]]:
    """Yields the tensor ranks, the stages and the context ranks that divide the devices."""
    for tp in (size for size in _divisors(devices) if size <= job.device.node and job.heads % size == 0):
        for pp in (size for size in _divisors(devices // tp) if size <= job.layers):
            most = WIDEST if job.context >= LONG_CONTEXT else 1
            yield from ((tp, pp, cp) for cp in _divisors(devices // (tp * pp)) if cp <= most)


def _divisors(number: int) -> list[int]:
    small = [size for size in range(1, int(number**0.5) + 1) if number % size == 0]
    return sorted({*small, *(number // size for size in small)})


def _rate(job: Job, *, ranks: int, beside: int) -> float:
    """The rate at which a device exchanges with ``ranks`` others that lie ``beside`` devices apart, one way."""
    inside = ranks * beside <= job.device.node
    rate = job.device.link_bytes_per_second if inside else job.device.network_bytes_per_second
    rate = rate or job.device.network_bytes_per_second or job.device.link_bytes_per_second
    if rate is None:
        raise ConfigError(f"nobody says how fast {job.device.name} reaches another device; plan for one of them")
    return REACHED * rate


def _all_reduce(job: Job, layout: Layout) -> float:
    """Seconds in which a micro-batch's stream is added up over the tensor ranks."""
    if layout.tp == 1:
        return 0.0
    moved = 2 * (layout.tp - 1) / layout.tp * layout.micro * job.row_bytes / layout.cp
    return moved / _rate(job, ranks=layout.tp, beside=1)


def _ring(job: Job, layout: Layout) -> float:
    """Seconds in which keys and values, here as wide as the stream, go round the context ranks."""
    if layout.cp == 1:
        return 0.0
    moved = (layout.cp - 1) / layout.cp * 2 * layout.micro * job.row_bytes / layout.tp
    return moved / _rate(job, ranks=layout.cp, beside=layout.tp)


def _exchange(job: Job, layout: Layout, params: float, batches: int) -> float:
    """Seconds in which replicas exchange gradients and weights, in 16 bits, once a step or, sharded, in each pass."""
    if layout.dp == 1:
        return 0.0
    times = 2 * batches + 1 if layout.zero == 3 else 2
    moved = times * 2 * params * (layout.dp - 1) / layout.dp
    return moved / _rate(job, ranks=layout.dp, beside=layout.tp * layout.cp * layout.pp)
