"""Token ids from outside, checked once before a model reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import index
from typing import Any, SupportsIndex

import torch
from jaxtyping import Int
from torch import Tensor

from groundup.errors import GenerationError
from groundup.model.model import Model
from groundup.model.stack import Stack

WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def several(given: Any, *, expected: str) -> list[Any]:
    """Returns what was given as a list of things; text and bytes are one thing each.

    Raises:
        GenerationError: it is one thing.
    """
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise GenerationError(f"{given!r} was given; expected {expected}")
    return list(given)


def as_ids(ids: Iterable[SupportsIndex]) -> list[int]:
    """Returns the token ids of a prompt as a list.

    Raises:
        GenerationError: they are no whole numbers one after the other.
    """
    try:
        return [index(id) for id in several(ids, expected="a text or a list of token ids")]
    except TypeError as fault:
        raise GenerationError(f"the prompt's ids are no whole numbers ({fault}); give a list of them") from fault


def as_rows(ids: Tensor | Sequence[Sequence[int]], spec: Model, *, device: torch.device) -> Int[Tensor, "B T"]:
    """Returns token ids as a tensor that the model can read.

    Raises:
        GenerationError: they are no whole numbers in rows of equal length, are longer than the context or outside the
            vocabulary.
    """
    try:
        rows = torch.as_tensor(ids, device=device)
    except (TypeError, ValueError, OverflowError, RuntimeError) as fault:
        raise GenerationError(f"the ids are no rows of equal length ({fault}); give whole numbers in (B, T)") from fault
    if rows.ndim != 2 or not rows.numel() or rows.dtype not in WHOLE:
        kind = str(rows.dtype).removeprefix("torch.")
        raise GenerationError(f"the ids are {kind} of shape {tuple(rows.shape)}; give whole numbers of shape (B, T)")
    if rows.shape[1] > spec.context:
        raise GenerationError(
            f"the rows are {rows.shape[1]} tokens long and the model's context {spec.context}; shorten them, or read "
            "them in pieces"
        )
    least, largest = rows.aminmax()
    check_vocab(int(least), int(largest), spec.vocab)
    return rows.to(torch.int64)


def side_by_side(rows: Sequence[list[int]], *, device: torch.device) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B"]]:
    """Returns rows of any lengths, padded on the right with their own last token, and their lengths."""
    longest = max(map(len, rows))
    ids = [[*row, *row[-1:] * (longest - len(row))] for row in rows]
    lengths = [len(row) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(lengths, device=device)


def check_source(ids: Sequence[int], spec: Stack) -> None:
    """Checks that an encoder can read a source.

    Raises:
        GenerationError: it is empty, longer than the context, or has ids outside the vocabulary.
    """
    if not ids:
        raise GenerationError("the source has no token; give at least one")
    if len(ids) > spec.context:
        raise GenerationError(
            f"the source is {len(ids)} tokens long and the model's context {spec.context}; shorten the source"
        )
    check_vocab(min(ids), max(ids), spec.vocab)


def check_prompt(ids: Sequence[int], spec: Stack) -> None:
    """Checks that a model can go on from a prompt.

    Raises:
        GenerationError: it is empty, leaves no room for a new token, or has ids outside the vocabulary.
    """
    if not ids:
        raise GenerationError("the prompt has no token; give at least one, such as the id of the begin token")
    if len(ids) >= spec.context:
        raise GenerationError(
            f"the prompt is {len(ids)} tokens long and the model's context {spec.context}, which leaves no room for a "
            f"new one; shorten the prompt to {spec.context - 1} tokens or fewer"
        )
    check_vocab(min(ids), max(ids), spec.vocab)


def check_vocab(least: int, largest: int, vocab: int) -> None:
    """Checks that the smallest and the largest of some token ids are in a vocabulary.

    Raises:
        GenerationError: one is not.
    """
    if least < 0 or largest >= vocab:
        raise GenerationError(
            f"token id {least if least < 0 else largest} is outside the model's vocabulary; expected 0 to {vocab - 1}, "
            "from the tokenizer that the model was trained with"
        )
