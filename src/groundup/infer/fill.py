"""Filling in masked tokens with an encoder's head, and the fillings that are most likely.

Each mask is filled by itself: the probability of several is the product of what the model gives each, all others
masked. Source: Devlin et al. 2019 (BERT, arXiv:1810.04805), section 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from groundup.errors import GenerationError
from groundup.infer.ids import as_rows
from groundup.model.encoder import EncoderModel
from groundup.model.heads import NoHead


@dataclass(frozen=True, kw_only=True)
class Filling:
    """One way to fill in what is masked.

    Attributes:
        text: the whole text, filled in.
        tokens: what stands in the places of the masks, in order.
        probability: that the model gives it.
    """

    text: str
    tokens: tuple[str, ...]
    probability: float


@torch.no_grad()
def fillings(
    model: EncoderModel, ids: Sequence[int], *, mask: int, count: int, vocab: int
) -> list[tuple[list[int], float]]:
    """Returns the likeliest ways to fill in the masks, best first: the new tokens in order, and their probability.

    Args:
        model: an encoder with a head.
        ids: the text.
        mask: the id that stands for a hidden token.
        count: how many ways to return at most.
        vocab: choose among the ids below this.

    Raises:
        GenerationError: nothing is masked, the model has no head, or the text is longer than its context.
    """
    places = [place for place, id in enumerate(ids) if id == mask]
    if not places:
        raise GenerationError("nothing is masked in the text, and an encoder fills in masks; write one in it")
    check_head(model)
    rows = as_rows([list(ids)], model.spec, device=model.embed.table.device)
    logits = model(rows)[0, places, :vocab]
    logits[:, mask] = -math.inf
    likely = logits.log_softmax(-1).topk(min(count, vocab - 1))
    ways: list[tuple[list[int], float]] = [([], 0.0)]
    for tokens, sure in zip(likely.indices.tolist(), likely.values.tolist(), strict=True):
        longer = [([*way, id], nats + more) for way, nats in ways for id, more in zip(tokens, sure, strict=True)]
        ways = sorted(longer, key=lambda way: -way[1])[:count]
    return [(way, math.exp(nats)) for way, nats in ways]


def check_head(model: EncoderModel) -> None:
    """Checks that an encoder can fill in tokens.

    Raises:
        GenerationError: it has no head.
    """
    if isinstance(model.spec.head, NoHead):
        raise GenerationError("the encoder has no head that fills in tokens; load a model that has, such as a BERT's")
