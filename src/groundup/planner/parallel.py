"""What a layout takes on each device, by the field's formulas from the parts of a rehearsed step.

    memory of a device   states of its share of the weights (ZeRO), activations of its layers for the micro-batches that
                         are under way, the loss
    time of a step       (m + (p - 1) / v) micro-batches of a stage: its layers' operations, shared by t tensor and c
                         context ranks, and the exchanges that wait between them; then what of the exchange of weights
                         and gradients the products do not hide, and the update
    of experts           each of e replicas holds 1 / e of them; a token's stream goes to each of its experts and back,
                         in the forward and in the backward: 4 exchanges among all of B T A D / e numbers

Norms and the stream between the matrices are shared by the tensor ranks too (sequence parallelism), so its sums are
exchanged in two halves that move the same bytes.

Sources: Rajbhandari et al. 2019 (ZeRO, arXiv:1910.02054); Narayanan et al. 2021 (arXiv:2104.04473), section 2:
pipelines of p stages, v rounds of them, m micro-batches; Korthikanti et al. 2022 (arXiv:2205.05198): tensor and
sequence parallelism, what is recomputed; Grattafiori et al. 2024 (Llama 3, arXiv:2407.21783), section 3.3: ranks that
share a row's context; Lepikhin et al. 2020 (GShard, arXiv:2006.16668) and Rajbhandari et al. 2022 (DeepSpeed-MoE,
arXiv:2201.05596): replicas that share experts. Every expert is taken to get as many tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from groundup.errors import ConfigError
from groundup.planner import offload
from groundup.planner.job import Job
from groundup.planner.published import MEGATRON_ADAM
from groundup.planner.shares import Layout

REACHED = 0.8  # of a link's or a network's published rate, by the large messages of a step
HIDDEN = 0.7  # of the backward's time, behind which gradients and weights are exchanged
RESERVED_BYTES = 3 * 2**30  # of each device: PyTorch's context, the exchanges' buffers, what the allocator loses
SENT_BYTES = 2 + 2  # of a gradient and a weight, to the host and back, in 16 bits


@dataclass(frozen=True, kw_only=True)
class Laid:
    """A layout with what it takes on each device.

    Attributes:
        layout: the layout.
        params: weights of the fullest device.
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
        late_seconds: of that, what of the exchange of gradients and weights the backward does not hide.
        update_seconds: of the update of the weights.
        fits: whether the peak is no more than the device has.
    """

    layout: Layout
    params: float
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
    late_seconds: float
    update_seconds: float
    fits: bool


@dataclass(frozen=True, kw_only=True)
class _Weights:
    """Those of the fullest device: what all tokens go through, and its experts."""

    dense: float
    experts: float

    @classmethod
    def of(cls, job: Job, layout: Layout, *, layers: float, ends: float) -> _Weights:
        experts = 0.0 if job.experts is None else job.experts.params
        return cls(
            dense=(layers * (job.each.params - experts) + ends * job.ends.params) / layout.tp,
            experts=layers * experts / layout.tp / layout.ep,
        )


def lay(job: Job, layout: Layout) -> Laid:
    """Returns what a layout takes."""
    layers, batches = -(-job.layers // layout.pp), job.rows // (layout.dp * layout.micro)  # layers of the fullest stage
    weights = _Weights.of(job, layout, layers=layers, ends=1 / min(layout.pp, 2))
    held = _held(job, layout, layers=layers, batches=batches, weights=weights)
    peak = sum(held.values())
    (each, ends), shared = job.among(layout.micro), layout.tp * layout.cp
    backward = each.backward_seconds + (each.light_seconds if layout.recompute == "selective" else 0.0)
    passes = 2 if layout.recompute == "full" else 1
    own = layers * (passes * each.forward_seconds + backward)
    outside = (ends.forward_seconds + ends.backward_seconds) / layout.pp
    computing = layout.micro * (own + outside) / shared
    waiting = layers * (
        (passes + 1) * 2 * (_all_reduce(job, layout) + _all_to_all(job, layout)) + (passes + 2) * _ring(job, layout)
    )
    bubble = (computing + waiting) * (layout.pp - 1) / layout.rounds
    hiding = HIDDEN * layout.micro * layers * backward / shared * (batches if layout.zero == 3 else 1)
    late = max(0.0, _exchange(job, layout, weights, batches) - hiding)
    update = _update(job, layout, weights)
    step = batches * (computing + waiting) + bubble + late + update
    return Laid(
        layout=layout,
        params=weights.dense + weights.experts,
        **{f"{name}_bytes": round(size) for name, size in held.items()},
        peak_bytes=round(peak),
        step_seconds=step,
        compute_seconds=batches * computing,
        bubble_share=bubble / step,
        exchange_seconds=batches * waiting + late,
        late_seconds=late,
        update_seconds=update,
        fits=peak <= job.device.memory_bytes,
    )


def _held(job: Job, layout: Layout, *, layers: int, batches: int, weights: _Weights) -> dict[str, float]:
    """Returns the bytes that the fullest device holds, by component."""
    dense = MEGATRON_ADAM.apart(weights.dense, stage=layout.zero, devices=layout.dp)
    experts = MEGATRON_ADAM.apart(weights.experts, stage=layout.zero, devices=layout.dp // layout.ep)
    held, gradients, optimizer = (sum(pair) for pair in zip(dense, experts, strict=True))
    if layout.zero == 3:  # the layer that runs and the one that comes next are whole
        one = _Weights.of(job, layout, layers=1, ends=0)
        held += 2 * MEGATRON_ADAM.weights * (one.dense + one.experts)
    each, shared = job.each, layout.tp * layout.cp
    kept = {"none": each.kept_bytes, "selective": min(each.kept_bytes, each.made_bytes), "full": job.row_bytes}
    under_way = float(min(layout.pp, batches))
    if layout.rounds > 1:
        under_way *= 1 + (layout.pp - 1) / (layout.pp * layout.rounds)
    again = 0.0 if layout.recompute == "none" else each.kept_bytes
    return {
        "weights": held,
        "gradients": gradients,
        "optimizer": 0.0 if layout.offload else optimizer,
        "activations": layout.micro * (layers * kept[layout.recompute] * under_way + again) / shared,
        "logits": layout.micro * job.logits_bytes / shared,
        "process": RESERVED_BYTES,
    }


def _update(job: Job, layout: Layout, weights: _Weights) -> float:
    """Seconds of the update of the weights: by the device that holds their state, or by its host."""
    if not layout.offload:
        return (job.layers * job.each.update_seconds + job.ends.update_seconds) / layout.devices
    own = (
        weights.dense / layout.dp + weights.experts * layout.ep / layout.dp
        if layout.zero
        else sum(vars(weights).values())
    )
    sharing = min(job.device.node, layout.devices)
    return offload.seconds(job.device, params=own, bytes_each=SENT_BYTES, sharing=sharing)


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


def _all_to_all(job: Job, layout: Layout) -> float:
    """Seconds in which a micro-batch's stream goes to its experts, or comes back, in the mean of all layers."""
    if layout.ep == 1 or job.experts is None:
        return 0.0
    tokens = layout.micro * job.row_bytes / (layout.cp * layout.tp)
    moved = (layout.ep - 1) / layout.ep * job.experts.active * job.experts.share * tokens
    return moved / _rate(job, ranks=layout.ep, beside=layout.tp * layout.cp)


def _exchange(job: Job, layout: Layout, weights: _Weights, batches: int) -> float:
    """Seconds in which replicas exchange gradients and weights, in 16 bits, once a step or, sharded, in each pass."""
    if layout.dp == 1:
        return 0.0
    times = 2 * batches + 1 if layout.zero == 3 else 2
    alike = layout.dp // layout.ep  # replicas that hold the same experts
    params = weights.dense * (layout.dp - 1) / layout.dp + weights.experts * (alike - 1) / alike
    moved = times * 2 * params
    return moved / _rate(job, ranks=layout.dp, beside=layout.tp * layout.cp * layout.pp)
