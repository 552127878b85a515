"""Writing text gone through without memory: what reading the prompts and each new token do, move and need.

It runs what `groundup.infer.generate` runs, on phantoms (phantom.py) and with the weights in the type in which they
are held: prompts piece by piece into a state, the head on the last token alone, the choice of the likeliest token. Of
layers that are equal two are run, the first, which makes what all share, and one that stands for the others.

A step of a few tokens reads far more than it computes, so what each operation moves is told more closely here than for
training: rows of tables and slots of states count as themselves, not as the whole that they lie in, and of a mixture's
experts those that so many tokens are expected to choose. With E experts, of which each of N tokens takes A:

    experts read = E (1 - (1 - A / E)^N)        where all are as likely as each other
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

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
from groundup.parts.linear import ExpertLinear
from groundup.planner.machine import Machine
from groundup.planner.phantom import VIEW, Meter, Phantom, Work
from groundup.planner.rehearsal import Works
from groundup.planner.time import works_seconds

# Operations that read some of their first argument, by ATen's names, and those that write some of it.
PICKING = {"embedding", "gather", "index", "index_select"}
PLACING = {"index_put_": 2, "scatter_": 2}  # with the argument that is as large as what they write
FEW = 16  # tokens of a piece that stands for others where a part reads token by token, which takes long to go through
SAMPLING = Sampling()  # greedy, as `LanguageModel.generate` is unless told otherwise


@dataclass(frozen=True)
class Operation:
    """An operation with where it reads.

    Attributes:
        work: the operation.
        weights_bytes: of what it moves, the weights.
        state_bytes: of what it moves, what the rows' state holds.
        inside: whether it is a layer's: the embedding, the last norm, the head and the choice are not.
    """

    work: Work
    weights_bytes: float = 0.0
    state_bytes: float = 0.0
    inside: bool = False


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
            size = piece_tokens(stage.decoder.spec, rows, prompt)
            for start, tokens, times in _pieces(prompt, size, most=size if _steady(spec) else FEW):
                with stage.ledger.times(times):
                    hidden = stage.read(state, rows, tokens, seen=start)
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


def _pieces(prompt: int, size: int, *, most: int) -> Iterator[tuple[int, int, float]]:
    """Yields pieces of a prompt, each with its start, its tokens and how many it stands for.

    Pieces after the first are at most ``most`` tokens, and stand for the others of theirs.
    """
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
    ledger = _Ledger()
    with devices.rehearsing(device), ledger, torch.no_grad():
        yield _Stage(ledger, spec, dtype)


class _Stage:
    """Where a model runs on phantoms: two of each of its layers, the first and one that stands for all others."""

    def __init__(self, ledger: _Ledger, spec: Decoder | EncoderDecoder, dtype: torch.dtype) -> None:
        short = {name: _twice(stack) for name, stack in spec.stacks.items()}
        stacks = {name: stack for name, (stack, _) in short.items()}
        self.ledger = ledger
        self.model: ModelModule = (stacks[""] if "" in stacks else spec.replace(**stacks)).module().eval()
        _hold(self.model, dtype)
        ledger.weights = {_storage(weight) for weight in self.model.parameters()}
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
            state = self.decoder.new_state(rows, room)
            for layer, states, times in zip(self.decoder.layers, state.layers, self.copies, strict=True):
                assert isinstance(layer, LayerModule)
                with self.ledger.times(times, inside=True):
                    layer.remember(states, ctx)
        else:
            state = self.decoder.new_state(rows, room)
        self.ledger.state = {_storage(t) for t in state.tensors().values()}
        return state

    def read(self, state: DecoderState, rows: int, tokens: int, *, seen: int) -> Tensor:
        """Reads a piece of the prompts; returns the hidden state of each one's last token."""
        state.reach = seen
        ids, every = torch.zeros(rows, tokens, dtype=torch.int64), torch.arange(rows)
        real = _lengths(rows, tokens)
        prefix = real if self.decoder.spec.prefixed else None
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


def _storage(t: Tensor) -> int:
    return t.bare.untyped_storage()._cdata if isinstance(t, Phantom) else 0


class _Ledger(Meter):
    """A meter that tells apart what is read of weights and of states, and how often each operation stands for itself.

    Attributes:
        operations: what was done since `mark`, and how many times.
        weights: the storages of weights.
        state: those of the rows' state.
    """

    def __init__(self) -> None:
        super().__init__("cpu")  # PyTorch makes no phantoms on a device that it was not built for
        self.operations: Counter[Operation] = Counter()
        self.weights: set[int] = set()
        self.state: set[int] = set()
        self._times: list[float] = [1.0]
        self._inside = False
        self._active = 1

    def mark(self) -> int:
        """Forgets the operations and the peak so far; returns the bytes alive now."""
        self.operations.clear()
        return super().mark()

    @contextmanager
    def times(self, times: float, *, inside: bool = False) -> Iterator[None]:
        """Counts what is done here so many times."""
        before, self._inside = self._inside, inside
        self._times.append(self._times[-1] * times)
        yield
        self._times.pop()
        self._inside = before

    def follow(self, layer: nn.Module, times: float) -> None:
        """Counts a layer's operations so many times from now on."""

        def enter(*_: Any) -> None:
            self._times.append(self._times[-1] * times)
            self._inside = True

        def leave(*_: Any) -> None:
            self._times.pop()
            self._inside = False

        layer.register_forward_pre_hook(enter)
        layer.register_forward_hook(leave)
        for part in layer.modules():
            if isinstance(part, ExpertLinear):
                part.register_forward_pre_hook(self._choose)

    def _choose(self, part: nn.Module, _: Any) -> None:
        assert isinstance(part, ExpertLinear)
        self._active = part.active

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation on shapes alone and writes it into the books."""
        self.works.clear()
        out = super().__torch_dispatch__(func, types, args, kwargs)
        given = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Phantom)]
        for work in list(self.works):
            self._note(work, args, given, out)
        return out

    def _note(self, work: Work, args: Any, given: list[Phantom], out: Any) -> None:
        """Writes down an operation with what it really moves."""
        read = {id(t): float(t.nbytes) for t in given}
        moved = float(work.moved_bytes)
        if work != VIEW and work.name in PICKING:
            read[id(args[0])] = min(args[0].nbytes, out.nbytes)
            moved -= args[0].nbytes - read[id(args[0])]
        elif work.name in PLACING:
            placed = args[PLACING[work.name]].numel()
            read[id(args[0])] = placed * args[0].element_size()
            moved -= 2 * (args[0].nbytes - read[id(args[0])])
            work = replace(work, elements=placed)
        elif work.name == "copy_":
            moved -= args[0].nbytes  # it is written and not read
        elif work.name == "expert_products":
            work, moved = self._of_experts(work, args, read)
        of_weights = sum(read[id(t)] for t in given if _storage(t) in self.weights and work != VIEW)
        of_state = sum(read[id(t)] for t in given if _storage(t) in self.state and work != VIEW)
        operation = Operation(replace(work, moved_bytes=round(moved)), of_weights, of_state, self._inside)
        self.operations[operation] += self._times[-1]

    def _of_experts(self, work: Work, args: Any, read: dict[int, float]) -> tuple[Work, float]:
        """The products of those experts that are expected to be chosen; all of them are one operation, or one each."""
        rows, weight, _ = args
        among = len(weight)
        chosen = expected_experts(among, active=self._active, tokens=len(rows) / self._active)
        idle = weight.nbytes * (1 - chosen / among)
        read[id(weight)] -= idle
        if devices.kind_of(rows) != "cuda" or rows.dtype != torch.bfloat16:
            self.operations[Operation(Work(name="mm", dtype=work.dtype))] += self._times[-1] * (chosen - 1)
            self.operations[Operation(VIEW)] += self._times[-1] * 3 * chosen  # of its rows, its matrix, its results
        size = (max(1, round(len(rows) / chosen)), *work.size[1:])
        return replace(work, size=size), work.moved_bytes - idle


def expected_experts(experts: int, *, active: int, tokens: float) -> float:
    """Returns how many different experts so many tokens choose, where all are as likely as each other."""
    return experts * (1 - (1 - active / experts) ** tokens)
