"""How well a model predicts whole documents: loss, perplexity and bits per byte.

    bits per byte = sum of -log2 p(token | document so far) over all tokens / bytes of the text

Every document is read after the begin token alone, and its own end counts, as in a compressor that must know where a
file ends: no byte of the text goes free. Documents longer than the context are read in windows that overlap; in each
window only the tokens that no earlier one has read count, so each has at least ``context - stride`` before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.context import NOT_COUNTED, Batch
from groundup.data.corpus import TokenDocument
from groundup.devices import autocast
from groundup.errors import ConfigError, DataError
from groundup.model.model import ModelModule
from groundup.objectives.loss import token_losses


@dataclass(frozen=True, kw_only=True)
class Score:
    """How well a model predicts a text.

    Attributes:
        nats: the summed cross-entropy of all tokens that were predicted.
        tokens: how many there are, ends of documents included.
        text_bytes: the length of the text in UTF-8; None where not all of it was predicted once.
        documents: how many documents it has; None where not all of it was predicted once.
    """

    nats: float
    tokens: int
    text_bytes: int | None = None
    documents: int | None = None

    @property
    def loss(self) -> float:
        """Mean cross-entropy per token, in nats."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """The exponential of the loss; it depends on the tokenizer, bits per byte do not."""
        return math.exp(min(self.loss, 700.0))

    @property
    def bits_per_byte(self) -> float | None:
        """Bits that the model needs for a byte of the text; None where not all of it was predicted once."""
        return None if self.text_bytes is None else self.nats / math.log(2) / self.text_bytes

    def to_dict(self) -> dict[str, float]:
        """Returns all figures by name, without those that there are not."""
        figures = {
            "loss": self.loss,
            "perplexity": self.perplexity,
            "bits_per_byte": self.bits_per_byte,
            "tokens": self.tokens,
            "text_bytes": self.text_bytes,
            "documents": self.documents,
        }
        return {name: value for name, value in figures.items() if value is not None}

    @classmethod
    def from_dict(cls, figures: Mapping[str, Any]) -> Score:
        """Returns the score whose `to_dict` these are."""
        counts = {name: figures.get(name) for name in ("text_bytes", "documents")}
        return cls(nats=figures["loss"] * figures["tokens"], tokens=figures["tokens"], **counts)


@dataclass(frozen=True, eq=False)
class _Window:
    """Consecutive tokens of one document; the targets before ``first`` were counted by an earlier window."""

    document: int
    ids: NDArray[np.int64]
    first: int


def perplexity(
    model: ModelModule,
    documents: Iterable[TokenDocument],
    *,
    begin: int,
    context: int | None = None,
    stride: int | None = None,
    tokens_per_batch: int = 8192,
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Score:
    """Returns how well a model predicts documents.

    Args:
        model: a decoder; it is put into evaluation mode.
        documents: what to read.
        begin: the id of the token that is read before each document; the end token where there is no other.
        context: tokens of a window; None means the model's.
        stride: tokens by which windows advance; None means half of the context.
        tokens_per_batch: how many tokens are read at once.
        dtype: of the matrix products.
        progress: hears how many of how many windows are read.

    Raises:
        ConfigError: stride and context do not fit together, or the context is beyond the model's.
        DataError: there is no text.
    """
    settings = {"context": context, "stride": stride, "tokens_per_batch": tokens_per_batch, "dtype": dtype}
    return together(document_scores(model, documents, begin=begin, progress=progress, **settings))


def document_scores(
    model: ModelModule,
    documents: Iterable[TokenDocument],
    *,
    begin: int,
    context: int | None = None,
    stride: int | None = None,
    tokens_per_batch: int = 8192,
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Score]:
    """Returns how well a model predicts each document; arguments and errors are those of `perplexity`."""
    context = model.spec.longest if context is None else context
    stride = max(context // 2, 1) if stride is None else stride
    if not 0 < context <= model.spec.longest:
        raise ConfigError(f"context={context} is not between 1 and the model's context of {model.spec.longest}")
    if not 0 < stride <= context:
        raise ConfigError(f"stride={stride} is not between 1 and context={context}, so tokens would be left out")
    model.eval()
    device = next(model.parameters()).device
    documents = list(documents)
    windows = [
        _Window(number, *piece)
        for number, doc in enumerate(documents)
        for piece in _pieces(doc, begin=begin, context=context, stride=stride)
    ]
    # Windows of like length share a batch, so that little of it is padding.
    windows.sort(key=lambda window: len(window.ids))
    nats, tokens, read = [0.0] * len(documents), [0] * len(documents), 0
    for group in _groups(windows, tokens_per_batch=tokens_per_batch):
        batch = _batch(group)
        with autocast(device, dtype):
            losses = token_losses(model, batch.to(device))
        counts = (batch.targets != NOT_COUNTED).sum(1).tolist()
        for window, of_window in zip(group, losses.cpu().double().split(counts), strict=True):
            nats[window.document] += of_window.sum().item()
            tokens[window.document] += of_window.shape[0]
        read += len(group)
        progress(read, len(windows))
    if not sum(tokens) or not sum(doc.text_bytes for doc in documents):
        raise DataError("there is no text to evaluate on; give documents that are not empty")
    every = zip(nats, tokens, documents, strict=True)
    return [Score(nats=sum_, tokens=count, text_bytes=doc.text_bytes, documents=1) for sum_, count, doc in every]


def together(scores: Iterable[Score]) -> Score:
    """Returns the score of several texts as that of one."""
    scores = list(scores)
    return Score(
        nats=math.fsum(score.nats for score in scores),
        tokens=sum(score.tokens for score in scores),
        text_bytes=sum(score.text_bytes or 0 for score in scores),
        documents=sum(score.documents or 0 for score in scores),
    )


def _pieces(
    document: TokenDocument, *, begin: int, context: int, stride: int
) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Yields windows of a document, each with the number of its first target that no earlier one counted."""
    ids = np.concatenate([[begin], document.ids]).astype(np.int64)
    first = 0
    for start in range(0, len(ids) - 1, stride):
        window = ids[start : start + context + 1]
        yield window, first - start
        first = start + len(window) - 1
        if first == len(ids) - 1:
            return


def _groups(windows: list[_Window], *, tokens_per_batch: int) -> Iterator[list[_Window]]:
    group: list[_Window] = []
    for window in windows:
        if group and (len(group) + 1) * (len(window.ids) - 1) > tokens_per_batch:
            yield group
            group = []
        group.append(window)
    if group:
        yield group


def _batch(windows: list[_Window]) -> Batch:
    size = (len(windows), len(windows[-1].ids) - 1)
    ids, targets = np.zeros(size, dtype=np.int64), np.full(size, NOT_COUNTED, dtype=np.int64)
    for row, window in enumerate(windows):
        count = len(window.ids) - 1
        ids[row, :count] = window.ids[:-1]
        targets[row, window.first : count] = window.ids[window.first + 1 :]
    return Batch(ids=torch.from_numpy(ids), targets=torch.from_numpy(targets))
