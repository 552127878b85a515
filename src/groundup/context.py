"""What travels beside the activations: the batch that a step reads, and the context that every mixer sees.

Letters: B rows, T tokens of this call, S all tokens seen so far with these.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from groundup.errors import GenerationError

Penalties = dict[str, list[Tensor]]  # of each layer that has one, with its weight

DOCUMENTS = "documents"  # of a context, under which `Context.shared` holds them
EMBEDDED = "embedded"  # the vectors that enter the first layer, among what layers share

NOT_COUNTED = -100  # a target that no loss counts: padding, or the end of what is known


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The tokens of one step and what each should predict.

    Attributes:
        ids: token ids, (B, T), int64.
        targets: the id that follows each token, (B, T), int64; `NOT_COUNTED` where nothing is to be learnt.
        segments: which document of its row each token belongs to, (B, T), int64; None means one document a row.
        positions: the place of each token in its document, (B, T), int64; None means 0, 1, 2, ... along the row.
        source: the tokens of another text that the targets are made from, (B, M), int64; None: there is none.
        source_lengths: how many of the M tokens of each row are real, (B,), int64; None means all.
        prefix: how many of the first tokens of each row see each other, (B,), int64; None means none.
        weights: what the loss of each target is multiplied by, (B, T); None means 1.
        read: how many tokens of text each row stands for, (B,), int64; None means its targets that count.
    """

    ids: Int[Tensor, "B T"]
    targets: Int[Tensor, "B T"]
    segments: Int[Tensor, "B T"] | None = None
    positions: Int[Tensor, "B T"] | None = None
    source: Int[Tensor, "B M"] | None = None
    source_lengths: Int[Tensor, "B"] | None = None
    prefix: Int[Tensor, "B"] | None = None
    weights: Float[Tensor, "B T"] | None = None
    read: Int[Tensor, "B"] | None = None

    @property
    def counted_tokens(self) -> int:
        """The number of targets that count."""
        return int((self.targets != NOT_COUNTED).sum())

    @property
    def read_tokens(self) -> int:
        """The number of tokens of text that the batch stands for."""
        return self.counted_tokens if self.read is None else int(self.read.sum())

    def first_rows(self, count: int) -> Batch:
        """Returns the batch of the first rows alone."""
        return self._with_each(lambda t: t[:count])

    def by_row(self) -> list[Batch]:
        """Returns a batch of each row."""
        return [self._with_each(lambda t, row=row: t[row : row + 1]) for row in range(len(self.ids))]

    def to(self, device: torch.device | str) -> Batch:
        """Returns the batch on another device."""
        return self._with_each(lambda t: t.to(device, non_blocking=True))

    def _with_each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Returns the batch with each of its tensors changed."""
        there = {name: value for name, value in vars(self).items() if value is not None}
        return Batch(**{name: change(value) for name, value in there.items()})


class Document(NamedTuple):
    """Where a document is: its row, its first token and the place after its last one."""

    row: int
    first: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Context:
    """What every mixer of one forward may know besides its input.

    Attributes:
        positions: the place of each token in its document, (B, T).
        segments: which document of its row each token belongs to, (B, T); tokens of different documents never see
            each other. None means one document a row. Not used together with states.
        seen: tokens that the state has read before this call, (B,); None without states.
        lengths: how many of the T tokens of each row are real, (B,); the rest is padding on the right, which nobody
            sees. None: all.
        types: which of two texts each token belongs to, (B, T), for models that were trained on pairs; None: the first.
        central: which tokens see all of their document and are seen by all of it, (B, T), in attention that has such
            tokens; None: those that the attention says.
        prefix: how many of the first tokens of each row see each other, (B,), for masks that have prefixes; None: none.
        reach: an upper bound of positions + 1 in this call, known without asking the device; 0 where there is none.
        memory: what another model made of a text that this one attends to, (B, M, D); None: there is none, or the
            state holds what is needed of it.
        memory_lengths: how many of the M tokens of each row are real, (B,). None: all.
        shared: values that layers compute once and share, see `once`.
        penalties: what parts add to the loss in training, by name, see `penalise`; None: nobody asks.
    """

    positions: Int[Tensor, "B T"]
    segments: Int[Tensor, "B T"] | None = None
    seen: Int[Tensor, "B"] | None = None
    lengths: Int[Tensor, "B"] | None = None
    types: Int[Tensor, "B T"] | None = None
    central: Bool[Tensor, "B T"] | None = None
    prefix: Int[Tensor, "B"] | None = None
    reach: int = 0
    memory: Float[Tensor, "B M D"] | None = None
    memory_lengths: Int[Tensor, "B"] | None = None
    shared: dict[Hashable, Any] = field(default_factory=dict)
    penalties: Penalties | None = None

    @classmethod
    def whole(
        cls,
        ids: Tensor,
        *,
        segments: Int[Tensor, "B T"] | None = None,
        positions: Int[Tensor, "B T"] | None = None,
        lengths: Int[Tensor, "B"] | None = None,
        types: Int[Tensor, "B T"] | None = None,
        central: Bool[Tensor, "B T"] | None = None,
        prefix: Int[Tensor, "B"] | None = None,
        memory: Float[Tensor, "B M D"] | None = None,
        memory_lengths: Int[Tensor, "B"] | None = None,
        penalties: Penalties | None = None,
    ) -> Self:
        """Returns the context of whole sequences: ``ids`` is (B, T, ...) and only its shape and device are read.

        Raises:
            GenerationError: it has no rows of tokens.
        """
        if not isinstance(ids, Tensor) or ids.ndim < 2:
            given = tuple(ids.shape) if isinstance(ids, Tensor) else type(ids).__name__
            raise GenerationError(f"ids are {given}; expected a tensor of shape (rows, tokens)")
        reach = ids.shape[1] if positions is None else 0
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape[:2])
        return cls(
            positions=positions,
            segments=segments,
            lengths=lengths,
            types=types,
            central=central,
            prefix=prefix,
            reach=reach,
            memory=memory,
            memory_lengths=memory_lengths,
            penalties=penalties,
        )

    @classmethod
    def after(
        cls,
        seen: Int[Tensor, "B"],
        tokens: int,
        *,
        reach: int,
        lengths: Int[Tensor, "B"] | None = None,
        prefix: Int[Tensor, "B"] | None = None,
    ) -> Context:
        """Returns the context of the next ``tokens`` tokens of rows that have read ``seen`` (B,) tokens each."""
        positions = seen[:, None] + torch.arange(tokens, device=seen.device)
        return cls(positions=positions, seen=seen, lengths=lengths, prefix=prefix, reach=reach)

    @property
    def starts(self) -> Bool[Tensor, "B T"] | None:
        """Where a document follows another in its row, so that a recurrence begins anew; None means nowhere."""
        segments = self.segments
        if segments is None:
            return None
        return self.once("starts", lambda: segments.diff(dim=1, prepend=segments[:, :1]) != 0)

    @property
    def real(self) -> Bool[Tensor, "B T"] | None:
        """Which tokens are no padding; None means all."""
        lengths = self.lengths
        if lengths is None:
            return None
        place = torch.arange(self.positions.shape[1], device=lengths.device)
        return self.once("real", lambda: place < lengths[:, None])

    @property
    def text_lengths(self) -> Int[Tensor, "B T1"]:
        """How many tokens each token's text has so far, padding apart; (B, 1) where a row is one text."""
        return self.once("text lengths", self._text_lengths)

    def _text_lengths(self) -> Int[Tensor, "B T1"]:
        ends = self.positions + 1
        if self.real is not None:
            ends = ends.where(self.real, 0)
        if self.starts is None:
            return ends.amax(1, keepdim=True)
        ends = ends - self.positions.where(self.starts, 0).cummax(1).values  # places may go on over all of a row
        text = self.starts.cumsum(1)
        return torch.zeros_like(ends).scatter_reduce(1, text, ends, "amax").gather(1, text)

    @property
    def documents(self) -> list[Document]:
        """The documents of all rows, without padding; found out once, by asking the device where they are packed."""
        if DOCUMENTS not in self.shared:
            rows, tokens = self.positions.shape
            ends = [tokens] * rows if self.lengths is None else self.lengths.tolist()
            starts = (
                [[0]] * rows if self.starts is None else [[0, *row.nonzero().flatten().tolist()] for row in self.starts]
            )
            self.shared[DOCUMENTS] = [
                Document(row, first, min(after, ends[row]))
                for row in range(rows)
                for first, after in itertools.pairwise([*starts[row], tokens])
                if first < ends[row]
            ]
        return self.shared[DOCUMENTS]

    def penalise(self, name: str, make: Callable[[], Tensor]) -> None:
        """Tells whoever asks what a layer adds to the loss."""
        if self.penalties is not None:
            self.penalties.setdefault(name, []).append(make())

    def once(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """Returns what ``make`` returns, computed by the first layer that asks for ``key``."""
        if key not in self.shared:
            self.shared[key] = make()
        return self.shared[key]
