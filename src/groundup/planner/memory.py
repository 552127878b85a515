"""How much memory a training step takes at its worst moment, by component.

The rehearsed parts are walked through as the real step walks through them: every layer's forward leaves what its
backward will read, the loss comes on top, every layer's backward frees what it read and leaves gradients, and the
update needs what it needs. The peak is the largest sum on that walk.

What the walk cannot know is added: what the allocator leaves unused, by a replay of its heap (replay.py), and measured
constants, see below.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from groundup.planner import replay
from groundup.planner.libraries import KERNEL_BYTES, buffer_bytes, kernels
from groundup.planner.rehearsal import Part

MIB = 2**20

# What a process holds that trains a model of next to no size: Python, PyTorch and groundup. Measured as VmHWM after
# four steps of one layer of width 64 in float32 (torch 2.13, Linux, 2 cores). On CUDA the peak is that of PyTorch's
# allocator, in which the process has no part.
PROCESS_BYTES = {"cpu": 321 * MIB}

# What the first steps load besides what a program held before: 18 MiB in training, and up to 3 more in scoring.
LOADED_BYTES = 21 * MIB

# What the allocator holds beyond what is alive, as a share of it, where the heap is not replayed (see replay.py): of
# twelve models of 3M to 30M parameters, 4% to 45%, half of them 13% to 24% (glibc 2.36, torch 2.13).
SLACK_SHARE = {"cpu": 0.18}


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The components of a training step's memory.

    Those marked * are what the peak consists of: their sum is ``peak_bytes``.

    Attributes:
        process_bytes: * of the program itself and its kernels.
        weights_bytes: * the float32 weights.
        optimizer_bytes: * its state.
        gradients_bytes: of all weights.
        copies_bytes: autocast's copies of the weights of all layers, kept from their forward to their backward.
        activations_bytes: what all forwards keep for the backwards, the copies not counted.
        logits_bytes: what the loss needs at most: a chunk of logits, the gradients of hidden states and head.
        step_bytes: * activations, copies, gradients and what is needed for a moment, at the peak.
        slack_bytes: * what the allocator cannot use: gaps between what is alive.
        moment: where the peak is: ``forward``, ``loss``, ``backward`` or ``update``.
    """

    process_bytes: int
    weights_bytes: int
    optimizer_bytes: int
    gradients_bytes: int
    copies_bytes: int
    activations_bytes: int
    logits_bytes: int
    step_bytes: int
    slack_bytes: int
    moment: str

    @property
    def peak_bytes(self) -> int:
        """The most that is held at once."""
        return self.process_bytes + self.weights_bytes + self.optimizer_bytes + self.step_bytes + self.slack_bytes


def training_memory(
    parts: Sequence[Part],
    *,
    device: str = "cpu",
    accumulate: int = 1,
    process_bytes: int | None = None,
    replaying: bool = True,
) -> Memory:
    """Returns the memory of a training step.

    Args:
        parts: the rehearsed micro-step.
        device: ``cpu``, ``cuda`` or ``mps``.
        accumulate: micro-batches in a step; from the second on, the gradients of the first are there all along.
        process_bytes: what the program holds before it trains, to which `LOADED_BYTES` come; together they are taken
            to be at least `PROCESS_BYTES`.
        replaying: whether the allocator is told from its heap, where there is one, or from `SLACK_SHARE`.
    """
    total = {
        name: sum(part.count * getattr(part, name) for part in parts)
        for name in ("gradient_bytes", "optimizer_bytes", "cast_bytes", "kept_bytes")
    }
    loss = next(part for part in parts if part.name == "loss")
    held, moment = max(_walk(parts, before=total["gradient_bytes"] if accumulate > 1 else 0))
    alive = total["gradient_bytes"] + total["optimizer_bytes"] + held
    program = max(PROCESS_BYTES.get(device, 0), LOADED_BYTES + (process_bytes or 0))
    program += kernels(parts) * KERNEL_BYTES + buffer_bytes(parts)
    return Memory(
        process_bytes=program if device in PROCESS_BYTES else 0,
        weights_bytes=total["gradient_bytes"],  # both are float32 and of the same shapes
        optimizer_bytes=total["optimizer_bytes"],
        gradients_bytes=total["gradient_bytes"],
        copies_bytes=total["cast_bytes"],
        activations_bytes=total["kept_bytes"] - loss.kept_bytes - total["cast_bytes"],
        logits_bytes=loss.forward_peak_bytes,
        step_bytes=held,
        slack_bytes=_slack(parts, accumulate, alive=alive, replaying=replaying) if device in SLACK_SHARE else 0,
        moment=moment,
    )


def _slack(parts: Sequence[Part], accumulate: int, *, alive: int, replaying: bool) -> int:
    grown = replay.grown_bytes(parts, accumulate=accumulate) if replaying else None
    return round(SLACK_SHARE["cpu"] * alive) if grown is None else max(grown - alive, 0)


def _walk(parts: Sequence[Part], *, before: int) -> Iterator[tuple[int, str]]:
    """Yields the most that is held in each part's forward, backward and update, with its moment.

    Args:
        parts: in the order of the forward.
        before: gradients that are there from an earlier micro-batch; those that are made are then added to them.
    """
    held = before
    every = [part for part in parts for _ in range(part.count)]
    for part in every:
        yield held + part.forward_peak_bytes, "loss" if part.name == "loss" else "forward"
        held += part.kept_bytes
    for part in reversed(every):
        yield held + part.backward_peak_bytes, "backward"
        held += part.backward_net_bytes - (part.gradient_bytes if before else 0)
    for part in every:
        yield held + part.update_peak_bytes, "update"
