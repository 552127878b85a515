"""Writing text gone through without memory: what reading the prompts and each new token do, move and need.

It runs what `groundup.infer.generate` runs, on phantoms (phantom.py) and with the weights in the type in which they
are held: prompts piece by piece into a state, the head on the last token alone, the choice of the likeliest token. Of
layers that are equal two are run, the first, which makes what all share, and one that stands for the others.

A step of a few tokens reads far more than it computes; what it reads is told by ledger.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from groundup import devices
from groundup.context import Context
from groundup.errors import ConfigError
from groundup.infer.generate import piece_tokens
from groundup.infer.sample import Sampling
from groundup.model.decoder import Decoder, DecoderModel, DecoderState
from groundup.model.encoder_decoder import EncoderDecoder, EncoderDecoderModel
from groundup.model.layer import LayerModule
from groundup.model.model import Model, ModelModule
from groundup.model.stack import Stack, StackModule
from groundup.planner.ledger import Ledger, Operation, storage
from groundup.planner.machine import Machine
from groundup.planner.rehearsal import Works
from groundup.planner.time import works_seconds

FEW = 16  # tokens of a piece that stands for others where a part reads token by token, which takes long to go through
SAMPLING = Sampling()  # greedy, as `LanguageModel.generate` is unless told otherwise


@dataclass(frozen=True, kw_only=True)
class Pass:
    """The operations between two tokens.

    Attributes:
        operations: each, and how many times it is done.
        held_bytes: the most that is held at once besides weights and state.
        row_bytes: of the state of one row.
    """

    operations: tuple[tuple[Operation, float], ...]
    held_bytes: int
    row_bytes: int

    @cached_property
    def works(self) -> Works:
        """The operations alone."""
        return tuple((operation.work, times) for operation, times in self.operations)

    @property
    def flops(self) -> float:
        """Of products of matrices and attention."""
        return sum(times * work.flops for work, times in self.works)

    @property
    def weights_bytes(self) -> float:
        """Read of the weights."""
        return sum(times * operation.weights_bytes for operation, times in self.operations)

    @property
    def state_bytes(self) -> float:
        """Read of the state, and written to it."""
        return sum(times * operation.state_bytes for operation, times in self.operations)


def prefill_seconds(spec: Model, *, rows: int, prompt: int, machine: Machine, dtype: torch.dtype) -> float:
    """Returns the time to read so many prompts and to choose the first token of each.

    Args:
        spec: a decoder, or an encoder-decoder, whose prompts are sources.
        rows: prompts side by side.
        prompt: tokens of each.
        machine: where it runs.
        dtype: of the weights.

    Raises:
        ConfigError: the model does not write.
    """
    return works_seconds(reading(spec, rows=rows, prompt=prompt, dtype=dtype, device=machine.device).works, machine)


def decode_seconds(
    spec: Model, *, rows: int, seen: int, machine: Machine, dtype: torch.dtype, source: int = 0
) -> float:
    """Returns the time of a step that adds a token to each row.

    Args:
        spec: a decoder or an encoder-decoder.
        rows: texts side by side.
        seen: tokens that each has read.
        machine: where it runs.
        dtype: of the weights.
        source: tokens of each source, where there is an encoder.

    Raises:
        ConfigError: the model does not write.
    """
    made = writing(spec, rows=rows, seen=seen, dtype=dtype, device=machine.device, source=source)
    return works_seconds(made.works, machine)


@lru_cache(maxsize=512)
def reading(spec: Model, *, rows: int, prompt: int, dtype: torch.dtype, device: str, room: int = 0) -> Pass:
    """Returns what reading the prompts takes, up to the choice of the first token.

    Pieces between the second and the last full one cost what lies between these two: attention over what was read
    before grows evenly from piece to piece.

    Args:
        spec: a decoder, or an encoder-decoder, whose prompts are sources.
        rows: prompts side by side.
        prompt: tokens of each.
        dtype: of the weights.
        device: the kind that is planned for; it need not be there.
        room: tokens that the state has room for; at least those of the prompt and a new one are taken.

    Raises:
        ConfigError: the model does not write.
    """
    with _staged(spec, dtype=dtype, device=device) as stage:
        if isinstance(spec, EncoderDecoder):
            state = stage.new_state(rows, max(room, 2), source=prompt)
            hidden = stage.read(state, rows, 1, seen=0)
        else:
            state = stage.new_state(rows, max(room, prompt + 1))
            pieces = _pieces(stage.decoder.spec, rows, prompt)
            *_, hidden = [stage.read(state, rows, n, seen=start, times=times) for start, n, times in pieces]
        stage.choose(hidden)
        return stage.books(state, rows)


@lru_cache(maxsize=512)
def writing(
    spec: Model, *, rows: int, seen: int, dtype: torch.dtype, device: str, source: int = 0, room: int = 0
) -> Pass:
    """Returns what a step takes that reads a token of each row and chooses the next.

    Args:
        spec: a decoder or an encoder-decoder.
        rows: texts side by side.
        seen: tokens that each has read.
        dtype: of the weights.
        device: the kind that is planned for; it need not be there.
        source: tokens of each source, where there is an encoder.
        room: tokens that the state has room for; at least those seen and the new one are taken.

    Raises:
        ConfigError: the model does not write.
    """
    with _staged(spec, dtype=dtype, device=device) as stage:
        state = stage.new_state(rows, max(room, seen + 1), source=source)
        held = torch.zeros(rows, stage.decoder.spec.vocab, dtype=torch.bool)
        newest = torch.zeros(rows, dtype=torch.int64)
        stage.ledger.mark()
        state.reach = seen
        hidden = stage.decoder.hidden(newest[:, None], state)[:, 0]
        held.scatter_(1, newest[:, None], True)
        stage.choose(hidden)
        return stage.books(state, rows)


def _pieces(spec: Decoder, rows: int, prompt: int) -> Iterator[tuple[int, int, float]]:
    """Yields pieces of a prompt, each with its start, its tokens and how many it stands for.

    Where a part reads later pieces token by token, a few of their tokens stand for the others.
    """
    size = piece_tokens(spec, rows, prompt)
    most = size if _steady(spec) else FEW
    full, rest = divmod(prompt, size)
    between = max(0, full - 3)
    for piece in (0, 1, full - 1) if between else range(full):
        tokens = size if piece == 0 else min(size, most)
        yield piece * size, tokens, (1 + between / 2 if piece else 1.0) * size / tokens
    if rest:
        tokens = min(rest, most) if full else rest
        yield full * size, tokens, rest / tokens


def _steady(spec: Decoder) -> bool:
    """Whether no part reads later pieces token by token."""
    return all(part.mixer.steady for layer in spec.layers for part in layer.every_part.values())


@contextmanager
def _staged(spec: Model, *, dtype: torch.dtype, device: str) -> Iterator[_Stage]:
    if not isinstance(spec, Decoder | EncoderDecoder):
        raise ConfigError(
            f"{type(spec).__name__} writes no text token by token; plan a decoder or an encoder-decoder, or its "
            "training"
        )
    ledger = Ledger()
    # In inference mode operations reach a meter before they are taken apart.
    with devices.rehearsing(device), torch.inference_mode(False), torch.no_grad(), ledger:
        yield _Stage(ledger, spec, dtype)


class _Stage:
    """Where a model runs on phantoms: two of each of its layers, the first and one that stands for all others."""

    def __init__(self, ledger: Ledger, spec: Decoder | EncoderDecoder, dtype: torch.dtype) -> None:
        short = {name: _twice(stack) for name, stack in spec.stacks.items()}
        stacks = {name: stack for name, (stack, _) in short.items()}
        self.ledger = ledger
        self.model: ModelModule = (stacks[""] if "" in stacks else spec.replace(**stacks)).module().eval()
        _hold(self.model, dtype)
        ledger.weights = {storage(weight) for weight in self.model.parameters()}
        decoder = self.model.decoder if isinstance(self.model, EncoderDecoderModel) else self.model
        assert isinstance(decoder, DecoderModel)
        self.decoder = decoder
        *_, (_, self.copies) = short.values()  # of the decoder's layers
        for name, (_, copies) in short.items():
            stack = self.model.get_submodule(name)
            assert isinstance(stack, StackModule)
            for layer, times in zip(stack.layers, copies, strict=True):
                ledger.follow(layer, times)
        self.weights_bytes = ledger.mark()

    def new_state(self, rows: int, room: int, *, source: int = 0) -> DecoderState:
        """Returns the state of rows that have read their source, if there is one, and written nothing."""
        if isinstance(self.model, EncoderDecoderModel):
            ids, lengths = torch.zeros(rows, source, dtype=torch.int64), _lengths(rows, source)
            ctx = Context.whole(ids, memory=self.model.encoder.hidden(ids, lengths=lengths), memory_lengths=lengths)
            state = self._empty(rows, room)
            for layer, states, times in zip(self.decoder.layers, state.layers, self.copies, strict=True):
                assert isinstance(layer, LayerModule)
                with self.ledger.times(times, inside=True):
                    layer.remember(states, ctx)
        else:
            state = self._empty(rows, room)
        self.ledger.state = {storage(t) for t in state.tensors().values()}
        return state

    def _empty(self, rows: int, room: int) -> DecoderState:
        """Returns a state; what its making takes is not counted."""
        with self.ledger.times(0):
            return self.decoder.new_state(rows, room)

    def read(self, state: DecoderState, rows: int, tokens: int, *, seen: int, times: float = 1.0) -> Tensor:
        """Reads a piece of the prompts, so many times; returns the hidden state of each one's last token."""
        state.reach = seen
        ids, every = torch.zeros(rows, tokens, dtype=torch.int64), torch.arange(rows)
        real = _lengths(rows, tokens)
        prefix = real if self.decoder.spec.prefixed else None
        with self.ledger.times(times):
            hidden = self.decoder.hidden(ids, state, lengths=real, prefix=prefix)
            return torch.where(real[:, None] > 0, hidden[every, (real - 1).clamp(min=0)], torch.tensor(0.0))

    def choose(self, hidden: Tensor) -> Tensor:
        """Returns the next token of each row."""
        logits = self.decoder.logits(hidden)
        logits.amax(-1).isfinite().all()
        return SAMPLING.choose(logits, noise=())

    def books(self, state: DecoderState, rows: int) -> Pass:
        """Returns what was done since the last mark."""
        each = [sum(part.nbytes for part in parts.values()) for parts in state.layers]
        return Pass(
            operations=tuple(self.ledger.operations.items()),
            held_bytes=max(0, self.ledger.peak_bytes - self.weights_bytes - sum(each)),
            row_bytes=round(sum(times * held for times, held in zip(self.copies, each, strict=True)) / rows),
        )


def _hold(model: ModelModule, dtype: torch.dtype) -> None:
    """Gives the weights a type as `groundup.hub.folder.read` does: buffers keep theirs."""
    kept = {name for name, _ in model.named_buffers()}
    held = model.state_dict().items()
    cast = {name: t if name in kept else torch.empty_like(t, dtype=dtype) for name, t in held}
    model.load_state_dict(cast, assign=True)


def _lengths(rows: int, tokens: int) -> Tensor:
    """Returns how many tokens of each row are real: all."""
    lengths = torch.full((rows,), tokens)
    lengths.tolist = lambda: [tokens] * rows  # a phantom has no values, and where documents end is asked for
    return lengths


def _twice(stack: Stack) -> tuple[Stack, list[int]]:
    """Returns a stack with at most two of each kind of layer, and how many each stands for."""
    layers, times = [], []
    for (layer, _), count in Counter(stack.layer_kinds).items():
        layers += [layer] * min(count, 2)
        times += [1, count - 1][: min(count, 2)]
    return stack.replace(layers=tuple(layers)), times
