"""The one loop of generation: read the prompts, then choose a token for every row and read it, until all are done.

It is a generator over (model, state), so there are no callbacks: whoever runs it sees each step's tokens and ends a
row by setting its ``finish``. Letters beyond the common ones: P, the longest prompt.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from groundup.errors import GenerationError
from groundup.infer.beams import Beams
from groundup.infer.generation import Generation, Limits
from groundup.infer.ids import check_prompt, check_source, side_by_side
from groundup.infer.sample import Sampling
from groundup.infer.search import Draws, Search
from groundup.model.decoder import Decoder, DecoderModel, DecoderState
from groundup.model.encoder_decoder import EncoderDecoder, EncoderDecoderModel
from groundup.model.model import Model
from groundup.state import State

Writer = DecoderModel | EncoderDecoderModel

PREFILL_TOKENS = 2048  # prompts are read in pieces of so many tokens over all rows, which bounds the memory


@dataclass
class Progress(State):
    """What belongs to the rows that still go on; `State.select` keeps all of it together.

    Attributes:
        model: what the model remembers.
        hidden: the hidden state of each row's last token.
        held: which tokens each row holds.
    """

    model: DecoderState
    hidden: Float[Tensor, "B D"]
    held: Bool[Tensor, "B V"]


@torch.inference_mode()
def steps(
    model: Writer,
    rows: Sequence[Generation],
    *,
    sampling: Sampling = Sampling(),  # noqa: B008 - a spec is a value
    max_new_tokens: int | None = None,
    ends: Collection[int] = (),
    vocab: int | None = None,
) -> Iterator[list[Generation]]:
    """Adds one token to unfinished rows at each step, and yields the rows that got one.

    Every row gets one at each step, or, where beams compete, each gets all of its tokens once its winner is known.

    Args:
        model: runs in evaluation mode, and is put back into its own mode at the end.
        rows: the prompts, and the sources where there is an encoder, of any lengths; each row is changed in place.
        sampling: how tokens are chosen.
        max_new_tokens: the most new tokens of a row; None means up to the model's context.
        ends: tokens that end a row, besides the one that the model's spec has.
        vocab: choose among the ids below this; None means among all. For models with more ids than their tokenizer.

    Raises:
        GenerationError: a prompt is empty, leaves no room in the context or has ids that the model does not know, or
            ``max_new_tokens`` is below 1, or the model's logits are not finite.
    """
    if max_new_tokens is not None and not (isinstance(max_new_tokens, int) and max_new_tokens >= 1):
        raise GenerationError(f"max_new_tokens={max_new_tokens!r} asks for no token; choose a whole number from 1 on")
    decoder = model.decoder if isinstance(model, EncoderDecoderModel) else model
    for row in rows:
        check_prompt(row.prompt_ids, decoder.spec)
        if isinstance(model, EncoderDecoderModel):
            check_source(row.source_ids, model.encoder.spec)
    known = decoder.spec.vocab if vocab is None else vocab
    training = model.training
    if training:
        model.eval()
    try:
        limits = _limits(model.spec, most=max_new_tokens, ends=ends)
        if rows:
            yield from _steps(model, decoder, rows, sampling=sampling, limits=limits, vocab=known)
    finally:
        if training:
            model.train()


def _limits(spec: Model, *, most: int | None, ends: Collection[int]) -> Limits:
    common = {"most": spec.longest if most is None else most, "context": spec.longest}
    match spec:
        case EncoderDecoder(end=end, first=first, last=last):
            every = {*ends} if end is None else {*ends, end}
            return Limits(ends=every, first=first, last=last, **common)
    return Limits(ends=set(ends), **common)


def piece_tokens(spec: Decoder, rows: int, longest: int) -> int:
    """Returns how many tokens of each of so many prompts, the longest of which is given, are read at once."""
    size = longest if spec.prefixed else max(1, PREFILL_TOKENS // rows)
    if spec.breaks and longest > min(spec.breaks):  # what the first piece is beyond, all others are
        size = max(size, 1 + max(spec.breaks))
    return size


def prefill(
    model: DecoderModel, state: DecoderState, ids: Int[Tensor, "B P"], *, lengths: Int[Tensor, "B"]
) -> Float[Tensor, "B D"]:
    """Reads prompts into a state, piece by piece, and returns the hidden state of each one's last token.

    Where masks have prefixes, the prompts are prefixes and are read at once. Where the length of a text decides how it
    is read, the first piece is long enough to tell.

    Args:
        model: the model; its head is not asked.
        state: what the rows have read before; continued in place.
        ids: the prompts, padded on the right with any tokens.
        lengths: how many tokens of each row are real, at least 1.
    """
    rows, longest = ids.shape
    size, prefix = piece_tokens(model.spec, rows, longest), lengths if model.spec.prefixed else None
    every, last = torch.arange(rows, device=ids.device), torch.tensor(0.0)
    for start in range(0, longest, size):
        piece = ids[:, start : start + size]
        real = (lengths - start).clamp(0, piece.shape[1])
        hidden = model.hidden(piece, state, lengths=real, prefix=prefix)
        last = torch.where(real[:, None] > 0, hidden[every, (real - 1).clamp(min=0)], last)
    return last


def _steps(
    model: Writer,
    decoder: DecoderModel,
    rows: Sequence[Generation],
    *,
    sampling: Sampling,
    limits: Limits,
    vocab: int,
) -> Iterator[list[Generation]]:
    room = max(len(row.prompt_ids) + limits.room(row) for row in rows)
    now = _read(model, decoder, rows, room=room)
    device, breaks = now.hidden.device, decoder.spec.breaks
    search: Search
    if sampling.beams > 1:
        now, search = now.repeat(sampling.beams), Beams(rows, sampling=sampling, limits=limits, device=device)
    else:
        search = Draws(rows, sampling=sampling, limits=limits, device=device)
    while True:
        logits = decoder.logits(now.hidden)
        if not logits.amax(-1).isfinite().all():
            raise GenerationError(
                "the model's logits are not finite, so no token can be chosen: its weights hold NaN or leave the range "
                "of their type; load them with dtype='float32', or take an earlier checkpoint"
            )
        logits[:, vocab:] = -math.inf
        yield from search.advance(logits, held=now.held)
        kept, newest = search.going()
        if not kept:
            return
        if breaks and not breaks.isdisjoint(length - 1 for length in search.lengths()):
            del now  # there may be no room for both
            now = _read(model, decoder, search.texts(), room=room)  # all of a text counts otherwise from here on
            continue
        count = len(now.hidden)
        if kept != list(range(count)):
            now = now.select(torch.tensor(kept, dtype=torch.int64, device=device))
        if len(kept) < count:
            now.model.tighten()
        now.hidden = decoder.hidden(newest[:, None], now.model)[:, 0]
        now.held.scatter_(1, newest[:, None], True)


def _read(model: Writer, decoder: DecoderModel, rows: Sequence[Generation], *, room: int) -> Progress:
    """Reads the prompts, right-padded with a token of their own, which adds nothing to what a row holds."""
    device = decoder.embed.table.device
    ids, lengths = side_by_side([row.prompt_ids for row in rows], device=device)
    match model:
        case EncoderDecoderModel():
            source, source_lengths = side_by_side([row.source_ids for row in rows], device=device)
            state = model.new_state(source, room, lengths=source_lengths)
        case DecoderModel():
            state = model.new_state(len(rows), room)
    held = torch.zeros(len(rows), decoder.spec.vocab, dtype=torch.bool, device=device).scatter_(1, ids, True)
    return Progress(model=state, hidden=prefill(decoder, state, ids, lengths=lengths), held=held)
