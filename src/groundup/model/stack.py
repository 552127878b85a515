"""Embedding, layers, norm, head: what reading from left to right and reading all at once have in common.

h_0 = embed(ids);  h_i = layer_i(h_{i-1});  output = head(norm(h_n))
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.context import EMBEDDED, Context
from groundup.errors import SpecError
from groundup.model.heads import Head, Untied
from groundup.model.layer import LayerModule, LayerSpec, LayerState
from groundup.model.model import Model, ModelModule
from groundup.ops import cross_entropy
from groundup.parts.embed import Embed
from groundup.parts.init import Init, ScaledNormal
from groundup.parts.linear import Linear, TiedHead
from groundup.parts.norm import Norm, RMSNorm
from groundup.specs import Size

LayerKind = tuple[LayerSpec, frozenset[str]]


class Stack(Model, abstract=True):
    """Layers over tokens.

    Attributes:
        width: the width of the residual stream.
        vocab: how many token ids there are.
        context: the longest sequence that the model is meant for, in tokens.
        layers: the layers, first to last.
        embed: how token ids become vectors.
        norm: the norm before the head.
        head: what makes logits.
        init: how weights start.
    """

    width: Size
    vocab: Size
    context: Size
    layers: tuple[LayerSpec, ...]
    embed: Embed = Embed()
    norm: Norm = RMSNorm()
    head: Head = Untied()
    init: Init = ScaledNormal()

    def __post_init__(self) -> None:
        super().__post_init__()
        tied: dict[str, LayerSpec] = {}
        for i, layer in enumerate(self.layers):
            if layer.streams != self.streams:
                raise SpecError(
                    f"layers.{i} is a {type(layer).__name__}, which carries {layer.streams} streams and "
                    f"{type(self).__name__} {self.streams}; Reversible layers and ReversibleDecoder go together"
                )
            for tie, parts in layer.ties.items():
                if tied.setdefault(tie, parts) != parts:
                    raise SpecError(
                        f"layers.{i} is tied as {tie!r} to a layer of other parts; give both the same, or another tie"
                    )
            for name, part in layer.every_part.items():
                self._reaches(part.mixer.longest, f"layers.{i}.{name}.mixer")
                self._has_bias(part.mixer.bias_heads, f"layers.{i}.{name}.mixer")
        self._reaches(self.embed.position.longest, "embed.position")
        with torch.device("meta"):
            self.embed.build(1, self.width)  # which refuses positions that are not for this width
        read, held = self.head.transform.made_width(self.carried), self.embed.vector_width(self.width)
        if self.head.tied and read != held:
            raise SpecError(
                f"the head reads {read} values and the vectors of the table that it shares have {held}; use Untied, or "
                f"transform=Project(table_width={held})"
            )

    def _reaches(self, longest: int | None, path: str) -> None:
        """Refuses a context that a part cannot read."""
        if longest is not None and longest < self.context:
            raise SpecError(
                f"context={self.context} is longer than the {longest} tokens that {path} can read; change one of them"
            )

    def _has_bias(self, heads: int | None, path: str) -> None:
        """Refuses attention that adds a bias which the embedding does not have."""
        position = self.embed.position
        if heads is not None and heads != position.bias_heads:
            raise SpecError(
                f"{path} adds a bias that layers share to {heads} heads, and embed.position is {position!r}; "
                f"make that RelativeBias(heads={heads}), or choose another position for the heads"
            )

    @property
    def streams(self) -> int:
        """How many streams run through the layers side by side."""
        return 1

    @property
    def carried(self) -> int:
        """The width of all streams together, which the last norm and the head read."""
        return self.streams * self.width

    @property
    def stacks(self) -> dict[str, Stack]:
        """Itself: it is a model that is one stack."""
        return {"": self}

    @property
    def longest(self) -> int:
        """The longest sequence that it is meant for, in tokens: its context."""
        return self.context

    def with_words(self, vocab: int, *, end: int) -> Self:
        """Returns the stack with another number of token ids."""
        return self.replace(vocab=vocab)

    @property
    def layer_kinds(self) -> tuple[LayerKind, ...]:
        """What the layers are: their specs, and which of their ties a layer before them owns."""
        made, owned = [], frozenset[str]()
        for layer in self.layers:
            made.append((layer, owned.intersection(layer.ties)))
            owned = owned.union(layer.ties)
        return tuple(made)

    def with_distinct_layers(self) -> Self:
        """Returns the model with each kind of its layers once: those that own weights, and those that borrow them."""
        return self.replace(layers=tuple(layer for layer, _ in dict.fromkeys(self.layer_kinds)))

    def module(self) -> StackModule:
        """Returns the model with weights that are not drawn yet."""
        raise NotImplementedError(type(self).__name__)


class StackModule(ModelModule):
    """The module of `Stack`."""

    spec: Stack  # pyrefly: ignore[bad-override-mutable-attribute]: nobody gives a module another spec
    head: Linear | TiedHead

    def __init__(self, spec: Stack) -> None:
        super().__init__()
        self.spec = spec
        self.embed = spec.embed.build(spec.vocab, spec.width)
        self.layers = nn.ModuleList(layer.build(spec.width) for layer in spec.layers)
        owners: dict[str, LayerModule] = {}
        for layer in [module for module in self.layers.modules() if isinstance(module, LayerModule) and module.tie]:
            owner = owners.setdefault(layer.tie, layer)
            if owner is not layer:
                layer.borrow(owner)
        self.norm = spec.norm.build(spec.carried)
        self.transform = spec.head.transform.build(spec.carried)
        self.head = spec.head.build(spec.carried, self.embed)

    @property
    def predictor(self) -> StackModule:
        """Itself."""
        return self

    def run(
        self, ids: Int[Tensor, "B T"], ctx: Context, states: Sequence[LayerState] | None = None
    ) -> Float[Tensor, "B T _"]:
        """Returns the final hidden states of tokens in a context; with states, continued in place."""
        x = self.opened(ctx.once(EMBEDDED, lambda: self.embed(ids, ctx)))
        return self.norm(self.through(self.layers, x, ctx, states))

    def opened(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T _"]:
        """Returns what enters the layers: the embedding, as it is."""
        return x

    def through(
        self,
        layers: Iterable[nn.Module],
        x: Float[Tensor, "B T D"],
        ctx: Context,
        states: Sequence[LayerState] | None = None,
    ) -> Float[Tensor, "B T _"]:
        """Returns what layers make of the stream; with their states, continued in place."""
        for i, layer in enumerate(layers):
            x = layer(x, ctx, None if states is None else states[i])
        return x

    def logits(self, hidden: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows V"]:
        """Returns the head's logits of hidden states, in float32 (in float64 for a model in float64)."""
        logits = self.head(self.for_head(hidden))
        return cross_entropy.bent(logits.to(torch.promote_types(logits.dtype, torch.float32)), self.spec.head.cap)

    def for_head(self, hidden: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows _"]:
        """Returns hidden states as the head's weights read them."""
        power = self.spec.head.width_power
        hidden = self.transform(hidden)
        return hidden * self.spec.width**power if power else hidden
