"""Mixers whose plan depends on how long a text is read each document by itself, packed or padded as it may be."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.nn import functional as F

from groundup.context import Context, Document

Heads = Shaped[Tensor, "B _H T _K"]


def each(run: Callable[..., Heads], *tensors: Heads, ctx: Context) -> Heads:
    """Returns what ``run`` makes of the documents of these tensors (B, H, T, K), each alone; padding becomes zeros."""
    if ctx.segments is None and ctx.lengths is None:
        return run(*tensors)
    rows, _, tokens, _ = tensors[0].shape
    if ctx.documents == [Document(row, 0, tokens) for row in range(rows)]:
        return run(*tensors)
    made = {
        row: torch.cat([run(*(t[row : row + 1, :, first:end] for t in tensors)) for _, first, end in documents], 2)
        for row, documents in groupby(ctx.documents, key=lambda document: document.row)
    }
    width = next(iter(made.values())) if made else tensors[-1]
    nothing = width.new_zeros(1, width.shape[1], 0, width.shape[3])
    padded = [made.get(row, nothing) for row in range(rows)]
    return torch.cat([F.pad(y, (0, 0, 0, tokens - y.shape[2])) for y in padded])
