"""Weight maps as data: each rule says how some of their tensors become some of ours, and back.

    theirs: h.{l}.attn.c_attn.weight   --SPLIT3_T-->   ours: layers.{l}.mix.mixer.{q,k,v}.weight

A rule's operation is a pair of inverse functions, so one list of rules both imports and exports, and a round trip
gives every bit back. ``{l}`` in a name runs over the layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from groundup.errors import WeightsError

Change = Callable[[list[Tensor]], list[Tensor]]
ENDS = ("weight", "bias")
QKVO = {"q": "q", "k": "k", "v": "v", "o": "out"}  # the maps of attention, as they are often called, and here


@dataclass(frozen=True)
class Op:
    """A pair of inverse functions on lists of tensors: ``read`` makes theirs ours, ``write`` makes ours theirs."""

    read: Change
    write: Change


@dataclass(frozen=True)
class Rule:
    """Which of their tensors make which of ours, and by which operation."""

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    op: Op


def _turned(t: Tensor) -> Tensor:
    return t.mT if t.ndim > 1 else t


SAME = Op(lambda ts: ts, lambda ts: ts)
TRANSPOSE = Op(lambda ts: list(map(_turned, ts)), lambda ts: list(map(_turned, ts)))  # matrices; vectors stay
TURNS = Op(lambda ts: [ts[0][..., ::2], ts[0][..., 1::2]], lambda ts: [torch.stack(ts, -1).flatten(-2)])  # a b a b ...
BARE = Op(lambda ts: [ts[0].flatten()], lambda ts: [ts[0][None, None]])  # vectors with two axes of length 1 in front
ROW = Op(lambda ts: [ts[0].squeeze(0)], lambda ts: [ts[0].unsqueeze(0)])  # vectors with an axis of length 1 in front
STACK = Op(lambda ts: [torch.stack(ts)], lambda ts: list(ts[0].unbind()))  # all of theirs along a new first axis
SQUEEZE = Op(lambda ts: [ts[0].squeeze(1)], lambda ts: [ts[0].unsqueeze(1)])  # a convolution of each channel alone


def chain(*ops: Op) -> Op:
    """Returns the operation that does several, one after the other."""

    def read(ts: list[Tensor]) -> list[Tensor]:
        for op in ops:
            ts = op.read(ts)
        return ts

    def write(ts: list[Tensor]) -> list[Tensor]:
        for op in reversed(ops):
            ts = op.write(ts)
        return ts

    return Op(read, write)


def split(parts: int) -> Op:
    """Returns the operation that cuts one tensor of theirs, along its first axis, into equal parts of ours."""
    return Op(lambda ts: list(ts[0].chunk(parts)), lambda ts: [torch.cat(ts)])


def split_sizes(*sizes: int) -> Op:
    """Returns the operation that cuts one tensor of theirs, along its first axis, into parts of these sizes of ours."""
    return Op(lambda ts: list(ts[0].split(sizes)), lambda ts: [torch.cat(ts)])


def split_heads(groups: int, *, queries: int = 1) -> Op:
    """Returns the operation that cuts one tensor of theirs, head by head, into queries, keys and values of ours.

    Args:
        groups: heads of keys; for each, theirs holds its heads of queries, its keys and its values in this order.
        queries: heads of queries for each head of keys.
    """
    shares = (queries, 1, 1)

    def read(ts: list[Tensor]) -> list[Tensor]:
        return [t.flatten(0, 2) for t in ts[0].unflatten(0, (groups, sum(shares), -1)).split(shares, 1)]

    def write(ts: list[Tensor]) -> list[Tensor]:
        heads = [t.unflatten(0, (groups, share, -1)) for t, share in zip(ts, shares, strict=True)]
        return [torch.cat(heads, 1).flatten(0, 2)]

    return Op(read, write)


def split_within(groups: int, *sizes: int) -> Op:
    """Returns the operation that cuts each group of rows of one tensor of theirs into parts of these sizes of ours."""

    def read(ts: list[Tensor]) -> list[Tensor]:
        return [t.flatten(0, 1) for t in ts[0].unflatten(0, (groups, -1)).split(sizes, 1)]

    def write(ts: list[Tensor]) -> list[Tensor]:
        return [torch.cat([t.unflatten(0, (groups, -1)) for t in ts], 1).flatten(0, 1)]

    return Op(read, write)


def halves(heads: int, turned: int, *, kept: int = 0) -> Op:
    """Returns the operation that reorders queries or keys whose rotation pairs neighbours, so that it pairs halves.

    Products of queries and keys are sums over pairs, so any order that both have gives the same.

    Args:
        heads: heads in the tensor's first axis.
        turned: how many of each head's values are turned.
        kept: how many come before them.
    """
    end = kept + turned

    def reorder(ts: list[Tensor], pairs: tuple[int, int]) -> list[Tensor]:
        each = ts[0].unflatten(0, (heads, -1))
        moved = each[:, kept:end].unflatten(1, pairs).transpose(1, 2).flatten(1, 2)
        return [torch.cat([each[:, :kept], moved, each[:, end:]], 1).flatten(0, 1)]

    return Op(lambda ts: reorder(ts, (-1, 2)), lambda ts: reorder(ts, (2, -1)))


def rule(theirs: str, ours: str, op: Op = SAME) -> Rule:
    """Returns a rule from names separated by spaces."""
    return Rule(tuple(theirs.split()), tuple(ours.split()), op)


def named(modules: Mapping[str, str], op: Op = SAME) -> list[Rule]:
    """Returns the rules of the weights and biases of modules: their names to ours."""
    return [rule(f"{theirs}.{end}", f"{ours}.{end}", op) for theirs, ours in modules.items() for end in ENDS]


def joined(theirs: str, ours: str, parts: Iterable[str], op: Op) -> list[Rule]:
    """Returns the rules of the weight and bias of one module of theirs that holds several parts of one of ours."""
    names = list(parts)
    return [rule(f"{theirs}.{end}", " ".join(f"{ours}.{part}.{end}" for part in names), op) for end in ENDS]


def instead(rules: Sequence[Rule], *changes: Rule) -> list[Rule]:
    """Returns the rules with others in place of those that share a tensor with them, on either side."""
    taken = {name for change in changes for name in (*change.theirs, *change.ours)}
    return [*(rule for rule in rules if taken.isdisjoint((*rule.theirs, *rule.ours))), *changes]


def read(weights: Mapping[str, Tensor], rules: Sequence[Rule], *, layers: int) -> dict[str, Tensor]:
    """Returns our tensors, made from theirs.

    Raises:
        WeightsError: a tensor of theirs is read by no rule, or a rule finds only some of its tensors.
    """
    return dict(read_each(weights, rules, layers=layers))


def read_each(weights: Mapping[str, Tensor], rules: Sequence[Rule], *, layers: int) -> Iterator[tuple[str, Tensor]]:
    """Yields what `read` returns, one rule at a time, so that neither side need be in memory as a whole."""
    steps = [(theirs, ours, rule.op.read) for rule in rules for theirs, ours in _names(rule, layers)]
    return _apply(weights, steps)


def write(weights: Mapping[str, Tensor], rules: Sequence[Rule], *, layers: int) -> dict[str, Tensor]:
    """Returns their tensors, made from ours: the inverse of `read`.

    Raises:
        WeightsError: a tensor of ours is written by no rule, or a rule finds only some of its tensors.
    """
    return dict(write_each(weights, rules, layers=layers))


def write_each(weights: Mapping[str, Tensor], rules: Sequence[Rule], *, layers: int) -> Iterator[tuple[str, Tensor]]:
    """Yields what `write` returns, one rule at a time, so that neither side need be in memory as a whole."""
    steps = [(ours, theirs, rule.op.write) for rule in rules for theirs, ours in _names(rule, layers)]
    return _apply(weights, steps)


def _names(rule: Rule, layers: int) -> list[tuple[list[str], list[str]]]:
    every = range(layers) if "{l}" in rule.theirs[0] else range(1)
    fill = lambda names, i: [name.replace("{l}", str(i)) for name in names]  # noqa: E731
    return [(fill(rule.theirs, i), fill(rule.ours, i)) for i in every]


def _apply(
    weights: Mapping[str, Tensor], steps: list[tuple[list[str], list[str], Change]]
) -> Iterator[tuple[str, Tensor]]:
    unread = set(weights)
    for sources, _, _ in steps:
        present = [name for name in sources if name in unread]
        if present and len(present) < len(sources):
            missing = ", ".join(sorted(set(sources) - set(present)))
            raise WeightsError(f"the weights hold {present[0]} but lack {missing}; the files are incomplete")
        unread -= set(sources)
    if unread:
        some = ", ".join(sorted(unread)[:4])
        raise WeightsError(
            f"{len(unread)} of {len(weights)} tensors belong to no part of this architecture, among them {some}; "
            "the configuration and the weights are of different models"
        )
    for sources, targets, change in steps:
        if sources[0] in weights:
            yield from zip(targets, change([weights[name] for name in sources]), strict=True)
