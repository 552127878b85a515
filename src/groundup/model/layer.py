"""A layer is an ordered set of named residual parts: ``mix`` over tokens, ``cross`` to a memory, ``ffn`` per token.

    Layer:     x <- part(x)                  for each part in turn
    Parallel:  x <- x + sum_i part_i(pre(x))     all parts read the same stream (Wang and Komatsuzaki 2021, GPT-J)
    Stacked:   x <- post(mixer(pre(x)))          for each part in turn: nothing is added (Graves 2013, arXiv:1308.0850)
    Fed:       x <- x + mixer(pre(x + W block(x)))   a mixer that is also fed what a block makes (Zamba)

Layers with the same ``tie`` share their weights, see `groundup.parts.tie`. Part names are the same in all families, so
weight names, adapters and sharding tables are too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from groundup.context import Context
from groundup.errors import SpecError
from groundup.model.residual import Residual, ResidualPart
from groundup.parts.linear import Linear
from groundup.parts.norm import NoNorm, Norm
from groundup.parts.tie import Borrowed, lend
from groundup.specs import Spec
from groundup.state import State

LayerState = dict[str, State]


class LayerSpec(Spec, abstract=True):
    """Named residual parts; None where a layer has no such part.

    Attributes:
        mix: mixes tokens.
        cross: attends to a memory.
        ffn: transforms each token.
        tie: layers of a stack that have the same name here share their weights; an empty one shares with none.
    """

    mix: Residual | None = None
    cross: Residual | None = None
    ffn: Residual | None = None
    tie: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.parts:
            raise SpecError(f"{type(self).__name__} has no part; give it at least one of mix, cross and ffn")

    @property
    def streams(self) -> int:
        """How many streams it carries side by side."""
        return 1

    @property
    def parts(self) -> Mapping[str, Residual]:
        """The parts that are there, by name, in the order in which they run."""
        named = {"mix": self.mix, "cross": self.cross, "ffn": self.ffn}
        return {name: part for name, part in named.items() if part is not None}

    @property
    def within(self) -> Mapping[str, LayerSpec]:
        """This layer and those inside it, by path; its own is empty."""
        return {"": self}

    @property
    def every_part(self) -> Mapping[str, Residual]:
        """The parts of this layer and of those inside it, by path."""
        inside = ((path, name, part) for path, layer in self.within.items() for name, part in layer.parts.items())
        return {f"{path}.{name}".lstrip("."): part for path, name, part in inside}

    @property
    def ties(self) -> Mapping[str, LayerSpec]:
        """What is tied here, by the name of the tie."""
        return {layer.tie: layer for layer in self.within.values() if layer.tie}

    def build(self, width: int) -> LayerModule:
        """Returns the module for a stream of ``width``."""
        raise NotImplementedError(type(self).__name__)


class Layer(LayerSpec):
    """Parts that run one after the other."""

    def build(self, width: int) -> LayerModule:
        """Returns the module for a stream of ``width``."""
        return LayerModule(self, width)


class Parallel(LayerSpec):
    """Parts that read the same stream and are added together.

    Attributes:
        pre: a norm of the stream that all parts share (GPT-J, PaLM, Falcon); the parts' own ``pre`` come after it.
    """

    pre: Norm = NoNorm()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, part in self.parts.items():
            if part.out != NoNorm():
                raise SpecError(f"{name}.out={part.out!r} has no place in Parallel, whose parts share one sum; drop it")

    def build(self, width: int) -> ParallelModule:
        """Returns the module for a stream of ``width``."""
        return ParallelModule(self, width)


class Stacked(LayerSpec):
    """Parts that run one after the other, each on what the one before it made, to which it adds nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, part in self.parts.items():
            if part.out != NoNorm() or part.scale != 1.0:
                raise SpecError(f"{name} in Stacked adds nothing to a stream; drop its out and scale, and use post")

    def build(self, width: int) -> StackedModule:
        """Returns the module for a stream of ``width``."""
        return StackedModule(self, width)


class Fed(LayerSpec):
    """A mixer that is fed, besides the stream, what a block makes of it; nothing of that is added to the stream.

    Attributes:
        block: what makes it, mostly a `Stacked` that is tied.
    """

    block: LayerSpec

    def __post_init__(self) -> None:
        super().__post_init__()
        if set(self.parts) != {"mix"}:
            raise SpecError(f"Fed has the parts {', '.join(self.parts)}; give it a mix part and no other")

    @property
    def within(self) -> Mapping[str, LayerSpec]:
        """This layer and those inside it, by path; its own is empty."""
        return {"": self} | {f"block.{path}".rstrip("."): layer for path, layer in self.block.within.items()}

    def build(self, width: int) -> FedModule:
        """Returns the module for a stream of ``width``."""
        return FedModule(self, width)


class LayerModule(nn.ModuleDict):
    """The module of `Layer`: its parts by name.

    Attributes:
        again: how often its backward computes the forward once more.
    """

    again = 0

    def __init__(self, spec: LayerSpec, width: int) -> None:
        super().__init__({name: part.build(width) for name, part in spec.parts.items()})
        self.names = tuple(spec.parts)
        self.tie = spec.tie

    @property
    def parts(self) -> dict[str, ResidualPart]:
        """All parts by the names of their states."""
        return {name: self.part(name) for name in self.names}

    def borrow(self, lender: LayerModule) -> None:
        """Uses the weights of another layer of the same spec from now on, but for what each has for itself."""
        for name, child in list(self.items()):
            match child, lender[name]:
                case LayerModule(), LayerModule() as other:
                    child.borrow(other)
                case ResidualPart(), other:
                    lend(other, child)
                case _ if next(child.parameters(), None) is not None:
                    self[name] = Borrowed(lender, name)

    def part(self, name: str) -> ResidualPart:
        """Returns the part of this name."""
        part = self[name]
        assert isinstance(part, ResidualPart)
        return part

    def forward(
        self, x: Float[Tensor, "B T D"], ctx: Context, state: LayerState | None = None
    ) -> Float[Tensor, "B T D"]:
        """Returns the stream after all parts."""
        for name in self.names:
            x = self[name](x, ctx, None if state is None else state[name])
        return x

    def new_state(
        self, rows: int, max_len: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> LayerState:
        """Returns the states of the parts' mixers, by name."""
        made = {name: part.mixer for name, part in self.parts.items()}
        return {name: mixer.new_state(rows, max_len, device=device, dtype=dtype) for name, mixer in made.items()}

    def remember(self, state: LayerState, ctx: Context, *, dtype: torch.dtype | None = None) -> None:
        """Puts what the parts' mixers need of the context's memory into a new state."""
        for name, part in self.parts.items():
            held = part.mixer.remember(ctx, dtype=dtype)
            if held is not None:
                state[name] = held

    def mix_flops(self, tokens: int, seen: int) -> int:
        """Returns the operations of all mixers besides their weight matrices."""
        return sum(part.mixer.mix_flops(tokens, seen) for part in self.parts.values())


class ParallelModule(LayerModule):
    """The module of `Parallel`."""

    def __init__(self, spec: Parallel, width: int) -> None:
        super().__init__(spec, width)
        self["pre"] = spec.pre.build(width)

    def forward(
        self, x: Float[Tensor, "B T D"], ctx: Context, state: LayerState | None = None
    ) -> Float[Tensor, "B T D"]:
        """Returns the stream plus what every part makes of it."""
        shared = self["pre"](x)
        for name in self.names:
            part = self.part(name)
            x = torch.add(x, part.delta(shared, ctx, None if state is None else state[name]), alpha=part.scale)
        return x


class StackedModule(LayerModule):
    """The module of `Stacked`."""

    def forward(
        self, x: Float[Tensor, "B T D"], ctx: Context, state: LayerState | None = None
    ) -> Float[Tensor, "B T D"]:
        """Returns what the last part makes of what the others made of the stream."""
        for name in self.names:
            x = self.part(name).delta(x, ctx, None if state is None else state[name])
        return x


class FedModule(LayerModule):
    """The module of `Fed`."""

    def __init__(self, spec: Fed, width: int) -> None:
        super().__init__(spec, width)
        self["block"] = spec.block.build(width)
        self["feed"] = Linear(width, width, bias=False, role="in")

    @property
    def inside(self) -> LayerModule:
        """The block."""
        block = self["block"]
        assert isinstance(block, LayerModule)
        return block

    @property
    def parts(self) -> dict[str, ResidualPart]:
        """All parts by the names of their states."""
        return super().parts | {f"block.{name}": part for name, part in self.inside.parts.items()}

    def forward(
        self, x: Float[Tensor, "B T D"], ctx: Context, state: LayerState | None = None
    ) -> Float[Tensor, "B T D"]:
        """Returns the stream after the mixer."""
        held = None if state is None else {name: state[f"block.{name}"] for name in self.inside.parts}
        fed = self["feed"](self.inside(x, ctx, held))
        part = self.part("mix")
        delta = part.delta(x + fed, ctx, None if state is None else state["mix"])
        return part.out(torch.add(x, delta, alpha=part.scale))


def pattern(layers: LayerSpec | Sequence[LayerSpec], *, of: int) -> tuple[LayerSpec, ...]:
    """Returns ``of`` layers that repeat ``layers``, one or several, in order; the last repeat may be cut short.

    Raises:
        SpecError: there is no layer to repeat, or ``of`` is below 1.
    """
    layers = (layers,) if isinstance(layers, LayerSpec) else layers
    if not layers or of < 1:
        raise SpecError(f"a pattern of {len(layers)} layers cannot make {of}; give at least one, and of=1 or more")
    return tuple(layers[i % len(layers)] for i in range(of))
