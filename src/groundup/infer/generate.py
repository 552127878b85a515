"""The one loop of generation: read the prompts, then choose a token for every row and read it, until all are done.

It is a generator over (model, state), so there are no callbacks: whoever runs it sees each step's tokens and ends a
row by setting its ``finish``. Letters beyond the common ones: P, the longest prompt.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from groundup.errors import GenerationError
from groundup.infer.ids import check_prompt
from groundup.infer.sample import Sampling
from groundup.model.decoder import DecoderModel, DecoderState
from groundup.state import State

Finish = Literal["end", "stop", "length", "context"]

PREFILL_TOKENS = 2048  # prompts are read in pieces of so many tokens over all rows, which bounds the memory


@dataclass(eq=False, kw_only=True)
class Generation:
    """A prompt and what has been made of it.

    Attributes:
        prompt_ids: the prompt, at least one token.
        ids: the new tokens in order, an end token and the tokens of a stop string included.
        text: the new text, up to the end token or the stop string; empty where there is no tokenizer.
        finish: why it ended: an end token, a stop string, the length that was asked for, or the model's context.
            None while it goes on.
        seed: of this row's draws; None means the sampling's.
        logprobs: the model's log-probability of each new token, before any change by the sampling. Start with an
            empty list to have them; None leaves them out.
    """

    prompt_ids: list[int]
    ids: list[int] = field(default_factory=list)
    text: str = ""
    finish: Finish | None = None
    seed: int | None = None
    logprobs: list[float] | None = None


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
    model: DecoderModel,
    rows: Sequence[Generation],
    *,
    sampling: Sampling = Sampling(),  # noqa: B008 - a spec is a value
    max_new_tokens: int | None = None,
    ends: Collection[int] = (),
    vocab: int | None = None,
) -> Iterator[list[Generation]]:
    """Adds one token to every unfinished row at each step, and yields the rows that got one.

    Args:
        model: runs in evaluation mode, and is put back into its own mode at the end.
        rows: the prompts, of any lengths; each is changed in place.
        sampling: how tokens are chosen.
        max_new_tokens: the most new tokens of a row; None means up to the model's context.
        ends: tokens that end a row.
        vocab: choose among the ids below this; None means among all. For models with more ids than their tokenizer.

    Raises:
        GenerationError: a prompt is empty, leaves no room in the context or has ids that the model does not know, or
            ``max_new_tokens`` is below 1, or the model's logits are not finite.
    """
    if max_new_tokens is not None and not (isinstance(max_new_tokens, int) and max_new_tokens >= 1):
        raise GenerationError(f"max_new_tokens={max_new_tokens!r} asks for no token; choose a whole number from 1 on")
    for row in rows:
        check_prompt(row.prompt_ids, model.spec)
    training = model.training
    if training:
        model.eval()
    try:
        most = model.spec.context if max_new_tokens is None else max_new_tokens
        known = model.spec.vocab if vocab is None else vocab
        yield from _steps(model, list(rows), sampling=sampling, most=most, ends=ends, vocab=known)
    finally:
        if training:
            model.train()


def prefill(
    model: DecoderModel, state: DecoderState, ids: Int[Tensor, "B P"], *, lengths: Int[Tensor, "B"]
) -> Float[Tensor, "B D"]:
    """Reads prompts into a state, piece by piece, and returns the hidden state of each one's last token.

    Args:
        model: the model; its head is not asked.
        state: what the rows have read before; continued in place.
        ids: the prompts, padded on the right with any tokens.
        lengths: how many tokens of each row are real, at least 1.
    """
    rows, longest = ids.shape
    size = max(1, PREFILL_TOKENS // rows)
    every, last = torch.arange(rows, device=ids.device), torch.tensor(0.0)
    for start in range(0, longest, size):
        piece = ids[:, start : start + size]
        real = (lengths - start).clamp(0, piece.shape[1])
        hidden = model.hidden(piece, state, lengths=real)
        last = torch.where(real[:, None] > 0, hidden[every, (real - 1).clamp(min=0)], last)
    return last


def _steps(
    model: DecoderModel,
    rows: list[Generation],
    *,
    sampling: Sampling,
    most: int,
    ends: Collection[int],
    vocab: int,
) -> Iterator[list[Generation]]:
    if not rows:
        return
    now = _start(model, rows, most=most)
    device = now.hidden.device
    seeds = [sampling.seed if row.seed is None else row.seed for row in rows]
    noise = [torch.Generator(device).manual_seed(seed) for seed in seeds]
    while rows:
        logits = model.logits(now.hidden)
        if not logits.amax(-1).isfinite().all():
            raise GenerationError(
                "the model's logits are not finite, so no token can be chosen: its weights hold NaN or leave the range "
                "of their type; load them with dtype='float32', or take an earlier checkpoint"
            )
        logits[:, vocab:] = -math.inf
        chosen = sampling.choose(logits, noise=noise, seen=now.held)
        _record(rows, chosen, logits)
        for row in rows:
            row.finish = _finish(row, most=most, ends=ends, context=model.spec.context)
        yield rows
        going = [i for i, row in enumerate(rows) if row.finish is None]
        if len(going) < len(rows):
            kept = torch.tensor(going, dtype=torch.int64, device=device)
            now, chosen = now.select(kept), chosen[kept]
            now.model.tighten()
            rows, noise = [rows[i] for i in going], [noise[i] for i in going]
        if rows:
            now.hidden = model.hidden(chosen[:, None], now.model)[:, 0]
            now.held.scatter_(1, chosen[:, None], True)


def _start(model: DecoderModel, rows: list[Generation], *, most: int) -> Progress:
    """Reads the prompts, right-padded with a token of their own, which adds nothing to what a row holds."""
    prompts, device = [row.prompt_ids for row in rows], model.embed.weight.device
    longest = max(map(len, prompts))
    ids = torch.tensor([p + p[-1:] * (longest - len(p)) for p in prompts], dtype=torch.int64, device=device)
    state = model.new_state(len(rows), max(min(len(p) + most, model.spec.context) for p in prompts))
    lengths = torch.tensor([len(p) for p in prompts], dtype=torch.int64, device=device)
    held = torch.zeros(len(rows), model.spec.vocab, dtype=torch.bool, device=device).scatter_(1, ids, True)
    return Progress(model=state, hidden=prefill(model, state, ids, lengths=lengths), held=held)


def _record(rows: list[Generation], chosen: Int[Tensor, "B"], logits: Float[Tensor, "B V"]) -> None:
    for row, id in zip(rows, chosen.tolist(), strict=True):
        row.ids.append(id)
    if any(row.logprobs is not None for row in rows):
        sure = logits.log_softmax(-1).gather(1, chosen[:, None])[:, 0]
        for row, logprob in zip(rows, sure.tolist(), strict=True):
            if row.logprobs is not None:
                row.logprobs.append(logprob)


def _finish(row: Generation, *, most: int, ends: Collection[int], context: int) -> Finish | None:
    if row.ids[-1] in ends:
        return "end"
    if len(row.ids) >= most:
        return "length"
    return "context" if len(row.prompt_ids) + len(row.ids) >= context else None
