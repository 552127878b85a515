"""A training step gone through without memory: what each part keeps, needs for a moment, does and leaves.

The embedding, each distinct layer, the last norm and the loss run forward and backward once on phantoms, under the
autocast of the real step, with the real objective's product and the real optimizer; see phantom.py. The whole model
is put together from these parts.
"""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundup import devices
from groundup.context import DOCUMENTS, EMBEDDED, Context, Document
from groundup.devices import autocast
from groundup.model.heads import NoHead
from groundup.model.model import Model
from groundup.model.stack import LayerKind, StackModule
from groundup.objectives.objective import Shape
from groundup.ops import cross_entropy
from groundup.optim.joint import JointOptimizer
from groundup.optim.optimizers import Optimizer
from groundup.parts.linear import TiedHead
from groundup.planner import cache_files
from groundup.planner.phantom import FREED, Event, Meter, Work
from groundup.specs import Spec, walk

Works = tuple[tuple[Work, float], ...]  # each operation and how many times it is done


MOST_CHUNKS = 64  # of a loss that are played; of more, the others are told from the first


@dataclass(frozen=True, kw_only=True)
class Comings:
    """What a part's tensors do to the heap, in order, for `groundup.planner.replay`; numbers are those of storages.

    Attributes:
        weights: the bytes of each weight.
        states: the bytes of each tensor of the optimizer's state.
        reads: what comes in; 0 where nothing does.
        makes: what goes out.
        keeps: whether the part needs what goes out for its backward.
        graded: the gradient that comes in.
        grades: the gradient that goes out; 0 where none does.
        forward: what the forward makes and frees.
        backward: the same of the backward.
        update: the same of the update of its weights.
    """

    weights: tuple[int, ...]
    states: tuple[int, ...]
    reads: int
    makes: int
    keeps: bool
    graded: int
    grades: int
    forward: tuple[Event, ...]
    backward: tuple[Event, ...]
    update: tuple[Event, ...]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a micro-step: the embedding, a layer, the last norm or the loss. All figures are of one copy.

    Attributes:
        name: ``embed``, ``layer``, ``norm`` or ``loss``.
        count: how many copies of it the model has.
        gradient_bytes: of its weights' gradients.
        optimizer_bytes: of its weights' optimizer state.
        kept_bytes: by how much memory grows in its forward.
        cast_bytes: the part of that which is autocast's copies of weights.
        forward_peak_bytes: the most that its forward holds above what was there before.
        backward_peak_bytes: the same of its backward.
        backward_net_bytes: by how much memory grows in its backward; negative where more is freed than gradients made.
        update_peak_bytes: what the optimizer needs for a moment.
        forward: its operations.
        backward: those of its backward.
        update: those of the gradients' norm and of the optimizer.
        comings: what its tensors do to the heap; None where that was not played to the end.
    """

    name: str
    count: int
    gradient_bytes: int
    optimizer_bytes: int
    kept_bytes: int
    cast_bytes: int
    forward_peak_bytes: int
    backward_peak_bytes: int
    backward_net_bytes: int
    update_peak_bytes: int
    forward: Works
    backward: Works
    update: Works
    comings: Comings | None = None


@lru_cache(maxsize=64)
def rehearse(
    spec: Model, *, rows: int, shape: Shape, dtype: torch.dtype, optimizer: Optimizer, device: str = "cpu"
) -> tuple[Part, ...]:
    """Returns the parts of a training step in the order of the forward.

    What was rehearsed once is kept in the user's cache folder, unless a spec was typed in and has no file that tells
    when it changes: PyTorch's first operation on the meta device imports its compiler, 1.2 s (torch 2.13).

    Args:
        spec: the model.
        rows: rows of the micro-batch.
        shape: of a row.
        dtype: of the matrix products; the weights are float32.
        optimizer: what updates the weights.
        device: the kind of device that is planned for; it need not be there.
    """
    code = _code_stamp(spec, optimizer)
    if code is None:
        return _rehearsed(spec, rows=rows, shape=shape, dtype=dtype, optimizer=optimizer, device=device)
    key = {
        "spec": spec.to_dict(),
        "rows": rows,
        "shape": asdict(shape),
        "dtype": str(dtype),
        "optimizer": optimizer.to_dict(),
        "device": device,
        "torch": torch.__version__,
        "code": code,
    }
    file = cache_files.path("rehearsal", key)
    with suppress(KeyError, TypeError, ValueError):
        return tuple(_part(data) for data in cache_files.read(file))
    parts = _rehearsed(spec, rows=rows, shape=shape, dtype=dtype, optimizer=optimizer, device=device)
    cache_files.write(file, [asdict(part) for part in parts])
    return parts


def _rehearsed(
    spec: Model, *, rows: int, shape: Shape, dtype: torch.dtype, optimizer: Optimizer, device: str
) -> tuple[Part, ...]:
    # PyTorch makes no phantoms on a device that it was not built for.
    stage = _Stage(device=torch.device("cpu"), dtype=dtype)
    with devices.rehearsing(device), stage.meter:
        return tuple(_play(stage, spec, optimizer, rows=rows, shape=shape))


def _code_stamp(*specs: Spec) -> list[tuple[str, int]] | None:
    """Changes whenever a file of the package does, or one that defines a part of these specs; None if one has none."""
    names = {type(node).__module__ for spec in specs for _, node in walk(spec)}
    files = sorted({str(getattr(sys.modules.get(name), "__file__", None)) for name in names})
    own = max(file.stat().st_mtime_ns for file in Path(__file__).parents[1].rglob("*.py"))
    with suppress(OSError):
        return [("", own), *((file, Path(file).stat().st_mtime_ns) for file in files)]
    return None


def _part(data: dict[str, Any]) -> Part:
    works: dict[str, Any] = {
        name: tuple((Work(**work | {"size": tuple(work["size"])}), times) for work, times in data[name])
        for name in ("forward", "backward", "update")
    }
    works["comings"] = None if data["comings"] is None else _comings(data["comings"])
    return Part(**{**data, **works})


def _comings(data: dict[str, Any]) -> Comings:
    read: dict[str, Any] = {name: tuple(map(tuple, data[name])) for name in ("forward", "backward", "update")}
    read |= {name: tuple(data[name]) for name in ("weights", "states")}
    return Comings(**{**data, **read})


def _play(stage: _Stage, spec: Model, optimizer: Optimizer, *, rows: int, shape: Shape) -> Iterator[Part]:
    model = spec.with_distinct_layers().module()
    stage.adopt(model, optimizer.build(model, products=stage.dtype))
    for name, stack in spec.stacks.items():
        module = model.get_submodule(name)
        assert isinstance(module, StackModule)
        tokens, kinds = shape.ids if stack is spec.predictor else shape.source, Counter(stack.layer_kinds)
        packed = len(spec.stacks) == 1  # sources and their targets are not
        yield from _play_stack(stage, module, kinds, rows=rows, tokens=tokens, memory=shape.source, packed=packed)
    yield _loss(stage, module, rows * shape.predicted)


def _play_stack(
    stage: _Stage,
    model: StackModule,
    counts: Counter[LayerKind],
    *,
    rows: int,
    tokens: int,
    memory: int,
    packed: bool,
) -> Iterator[Part]:
    """The embedding, the layers and the norm of a stack that reads so many rows of tokens, beside such a memory.

    Where rows are ``packed``, a document ends in each and the next begins.
    """
    stream = (rows, tokens, model.spec.carried)
    ids = torch.zeros(rows, tokens, dtype=torch.int64)
    places = torch.zeros_like(ids)
    remembered = torch.empty(rows, memory, model.spec.width, requires_grad=bool(memory))
    where = places if packed else None
    first = _Remembering.whole(ids, segments=where, positions=where, memory=remembered)
    ends = [0, tokens // 2, tokens] if packed and tokens > 1 else [0, tokens]
    first.shared[DOCUMENTS] = [Document(row, *pair) for row in range(rows) for pair in itertools.pairwise(ends)]
    first.shared[EMBEDDED] = torch.empty(rows, tokens, model.spec.width)
    with autocast(stage.meter.device, stage.dtype):
        model.embed(ids, first)
        for layer in model.layers:
            model.through([layer], torch.empty(stream), first)
    first.forget()
    yield stage.play("shared", [], lambda _: first.make_again(), reads=())
    ctx, learnt = first.handed_on()
    graded = [model.embed.weight] if isinstance(model.head, TiedHead) and model.embed.weight is not None else []
    yield stage.play("embed", [model.embed], lambda _: model.embed(ids, ctx), reads=(), graded=graded)
    graded = [remembered, *learnt]
    for layer, count in zip(model.layers, counts.values(), strict=True):
        run = partial(model.through, [layer], ctx=ctx)
        yield stage.play("layer", [layer], run, reads=stream, count=count, graded=graded)
    yield stage.play("norm", [model.norm], lambda x: model.norm(x).flatten(0, 1), reads=stream)


def _loss(stage: _Stage, model: StackModule, tokens: int) -> Part:
    """The loss of all tokens; of many chunks, put together from that of three and of four.

    Without a head, what is learnt from the hidden states is not known: it is taken to be their sum.
    """
    if isinstance(model.spec.head, NoHead):
        states = (tokens, model.spec.carried)
        return stage.play("loss", [model.transform], lambda x: model.for_head(x).sum() / tokens, reads=states)
    chunk = cross_entropy.chunk_rows(torch.empty(model.spec.vocab, 1, dtype=stage.dtype))

    def play(count: int) -> Part:
        targets = torch.zeros(count, dtype=torch.int64)
        head = model.head

        def loss(x: Tensor) -> Tensor:
            return (
                cross_entropy.chunked(model.for_head(x), head.weight, targets, bias=head.bias, cap=model.spec.head.cap)
                / tokens
            )

        return stage.play("loss", [model.transform, head], loss, reads=(count, model.spec.carried))

    if tokens <= MOST_CHUNKS * chunk:
        return play(tokens)
    return _extrapolate(play(3 * chunk), play(4 * chunk), tokens / chunk - 3)


def _extrapolate(three: Part, four: Part, more: float) -> Part:
    """The part of three chunks with what the fourth added, ``more`` times: from there on, each adds the same."""
    figures: dict[str, Any] = {}
    for name, first in vars(three).items():
        second = getattr(four, name)
        if name.endswith("_bytes"):
            figures[name] = round(first + more * (second - first))
        elif name in ("forward", "backward", "update"):
            figures[name] = _more(dict(first), dict(second), more)
        elif name == "comings":
            figures[name] = None
        else:
            figures[name] = first
    return Part(**figures)


def _more(three: dict[Work, float], four: dict[Work, float], more: float) -> Works:
    every = {work: (1 - more) * three.get(work, 0.0) + more * four.get(work, 0.0) for work in three | four}
    return tuple((work, times) for work, times in every.items() if times > 0)


@dataclass(frozen=True, kw_only=True)
class _Remembering(Context):
    """A context that remembers how what layers share was made, and can make it once more.

    Attributes:
        makers: of what was asked for, in that order.
    """

    makers: dict[Hashable, Callable[[], Tensor]] = field(default_factory=dict)

    def once(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """Does what a context does, and remembers it."""
        self.makers.setdefault(key, make)
        return super().once(key, make)

    def forget(self) -> None:
        """Forgets what is no part of a layer, so that it can be made once more."""
        for key in [key for key, make in self.makers.items() if make() is not self.shared[key]]:
            del self.shared[key]

    def make_again(self) -> Tensor:
        """Makes what was forgotten; returns a number that depends on all of it that is learnt."""
        made = [self.once(key, make) for key, make in tuple(self.makers.items())]
        learnt = [t for t in made if t.requires_grad]
        return torch.stack([t.sum() for t in learnt]).sum() if learnt else torch.zeros((), requires_grad=True).clone()

    def handed_on(self) -> tuple[Context, list[Tensor]]:
        """Returns a plain context with what is shared, and of that what has a gradient of its own, as leaves."""
        self.makers.clear()  # each holds this context, and it them
        learnt = {key: t for key, t in self.shared.items() if isinstance(t, Tensor) and t.requires_grad}
        self.shared.update({key: t.detach().requires_grad_() for key, t in learnt.items()})
        plain = Context(**{field.name: getattr(self, field.name) for field in fields(Context)})
        return plain, [self.shared[key] for key in learnt]


class _Source(torch.autograd.Function):
    """The end of a part's forward: in the backward, where a gradient of its output comes from."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, tell: Callable[[Tensor], None]) -> Tensor:
        ctx.shape, ctx.dtype, ctx.tell = y.shape, y.dtype, tell
        return torch.zeros(())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        grad = torch.empty(ctx.shape, dtype=ctx.dtype)
        ctx.tell(grad)
        return grad, None


class _Stage:
    """Where parts are played: the meter, the precision, the model and the optimizer that they share."""

    def __init__(self, *, device: torch.device, dtype: torch.dtype) -> None:
        self.meter = Meter(device)
        self.dtype = dtype

    def adopt(self, model: nn.Module, optimizer: JointOptimizer) -> None:
        """Takes the model whose parts are played, and its optimizer."""
        self.optimizer = optimizer
        self.meter.copies_of(model.parameters())

    def play(
        self,
        name: str,
        modules: list[nn.Module],
        run: Callable[[Tensor], Tensor],
        *,
        reads: tuple[int, ...],
        count: int = 1,
        graded: Sequence[Tensor] = (),
    ) -> Part:
        """Returns the books of one part.

        Args:
            name: of the part.
            modules: whose weights are the part's own.
            run: maps what comes in to what goes out.
            reads: the shape of what comes in.
            count: how many copies the model has.
            graded: what has a gradient before the part's backward begins.
        """
        meter = self.meter
        weights = [weight for module in modules for weight in module.parameters()]
        source = torch.empty(reads, requires_grad=True)
        x = source.clone()
        given = meter.number(x) if reads else 0
        before = meter.mark()
        with autocast(meter.device, self.dtype):
            y = run(x)
        del x
        forward, made, graded_by = _Books.of(meter, before), meter.number(y), []
        casts, end = meter.copied_bytes, _Source.apply(y, lambda grad: graded_by.append(meter.number(grad)))
        del y
        keeps = (made, FREED) not in meter.events
        for tensor in graded:
            tensor.grad = torch.empty_like(tensor)
        before = meter.mark()
        end.backward()
        grades = 0 if source.grad is None else meter.number(source.grad)
        source.grad = None
        backward = _Books.of(meter, before)
        update = self._update(weights)
        states = self._states(weights)
        return Part(
            name=name,
            count=count,
            gradient_bytes=sum(weight.nbytes for weight in weights),
            optimizer_bytes=sum(states),
            kept_bytes=forward.net_bytes,
            cast_bytes=casts,
            forward_peak_bytes=forward.peak_bytes,
            backward_peak_bytes=backward.peak_bytes,
            backward_net_bytes=backward.net_bytes,
            update_peak_bytes=update.peak_bytes,
            forward=forward.works,
            backward=backward.works,
            update=update.works,
            comings=Comings(
                weights=tuple(weight.nbytes for weight in weights),
                states=states,
                reads=given,
                makes=made,
                keeps=keeps,
                graded=graded_by[0],
                grades=grades,
                forward=forward.events,
                backward=backward.events,
                update=update.events,
            ),
        )

    def _update(self, weights: list[nn.Parameter]) -> _Books:
        """Measures the gradients of these weights and updates them; returns the books of a second such update.

        The first one makes the optimizer's state. There is no update without weights: an optimizer may count on one.
        """
        if not weights:
            return _Books(0, 0, (), ())
        every = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        for weight in set(every) - set(weights):
            weight.grad = None
        self.optimizer.step()
        before = self.meter.mark()
        nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None], foreach=True)
        self.optimizer.step()
        books = _Books.of(self.meter, before)
        self.optimizer.zero_grad()
        return books

    def _states(self, weights: list[nn.Parameter]) -> tuple[int, ...]:
        """The bytes of each tensor of the optimizer's state of these weights."""
        states = [part.state[weight] for part in self.optimizer.parts for weight in weights if weight in part.state]
        return tuple(value.nbytes for state in states for value in state.values() if isinstance(value, Tensor))


@dataclass(frozen=True)
class _Books:
    """What a meter saw since a mark."""

    net_bytes: int
    peak_bytes: int
    works: Works
    events: tuple[Event, ...]

    @classmethod
    def of(cls, meter: Meter, before: int) -> _Books:
        works, events = tuple(meter.works.items()), tuple(meter.events)
        return cls(meter.live_bytes - before, meter.peak_bytes - before, works, events)
