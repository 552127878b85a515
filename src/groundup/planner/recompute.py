"""A rehearsed step of which parts of the forward are played again in the backward, and take less memory in between.

    layers     a layer keeps only the stream that it reads; its backward plays its forward again
    selective  a layer keeps what its products of matrices make; the rest is made again

Sources: Chen et al. 2016 (arXiv:1604.06174), section 4: a segment's activations are dropped and made again;
Korthikanti et al. 2022 (arXiv:2205.05198), section 5: only what is large and cheap is made again. groundup trains
without either yet, so this part of a plan is told by what the rehearsal found, and not held to a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from groundup.errors import ConfigError, nearest
from groundup.planner.published import Recompute
from groundup.planner.rehearsal import Part, Works

CHECKPOINTING: dict[str, Recompute] = {"none": "none", "layers": "full", "full": "full", "selective": "selective"}


def named(checkpointing: str) -> Recompute:
    """Returns what is made again, by the name of a way of checkpointing; ``layers`` and ``full`` are the same.

    Raises:
        ConfigError: there is no such way.
    """
    if checkpointing not in CHECKPOINTING:
        hint = nearest(checkpointing, CHECKPOINTING) or f"choose from {', '.join(CHECKPOINTING)}"
        raise ConfigError(f"checkpointing={checkpointing!r} is unknown; {hint}")
    return CHECKPOINTING[checkpointing]


def light(works: Works) -> Works:
    """Returns the operations that are no products."""
    return tuple((work, times) for work, times in works if not work.flops)


def made_bytes(part: Part) -> float:
    """Returns what a part's products make, in 16 bits.

    What closes a residual part is added to the stream and not kept; in its place stands the stream before the part.
    """
    return sum(2 * work.elements * times for work, times in part.forward if work.flops)


def played_again(parts: Sequence[Part], how: Recompute, *, stream_bytes: Sequence[int]) -> tuple[Part, ...]:
    """Returns a step whose layers make again what they do not keep.

    Autocast's copies of a layer's weights go with what it keeps: they are made again too.

    Args:
        parts: of the step, as rehearsed, in the order of the forward; each stack begins with its embedding.
        how: what layers make again.
        stream_bytes: of what a layer reads, for each stack.
    """
    return tuple(parts) if how == "none" else tuple(_played(parts, how, stream_bytes))


def _played(parts: Sequence[Part], how: Recompute, stream_bytes: Sequence[int]) -> Iterator[Part]:
    stack = -1
    for part in parts:
        stack += part.name == "embed"
        yield _again(part, how, stream=stream_bytes[stack]) if part.name == "layer" else part


def _again(part: Part, how: Recompute, *, stream: int) -> Part:
    """A layer whose backward first plays its forward, with the gradient of its output beside it."""
    kept = stream if how == "full" else round(made_bytes(part)) + part.cast_bytes
    if kept >= part.kept_bytes:
        return part
    missing = part.kept_bytes - kept
    return replace(
        part,
        kept_bytes=kept,
        cast_bytes=0 if how == "full" else part.cast_bytes,
        backward_peak_bytes=max(stream + part.forward_peak_bytes, missing + part.backward_peak_bytes),
        backward_net_bytes=part.backward_net_bytes + missing,
        backward=(part.forward if how == "full" else light(part.forward)) + part.backward,
    )
