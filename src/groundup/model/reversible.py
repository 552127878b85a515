"""Layers over two streams whose input can be computed from their output, so that training keeps none of it.

    y1 = x1 + mix(x2),  y2 = x2 + ffn(y1)      backwards:  x2 = y2 - ffn(y1),  x1 = y1 - mix(x2)

Both streams start as the embedding; the last norm and the head read them side by side. What is kept for the backward
does not grow with the number of layers: the last output is, and every part is computed once more.
Sources: Gomez et al. 2017 (RevNet, arXiv:1707.04585), section 3; Kitaev et al. 2020 (Reformer, arXiv:2001.04451),
section 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import get_device_states, set_device_states

from groundup.autograd import once
from groundup.context import Context
from groundup.errors import SpecError
from groundup.model.decoder import Decoder, DecoderModel
from groundup.model.layer import LayerModule, LayerSpec, LayerState
from groundup.model.residual import ResidualPart
from groundup.parts.norm import NoNorm


class Reversible(LayerSpec):
    """A layer over two streams: adds ``mix`` of the second to the first, then ``ffn`` of the first to the second."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if list(self.parts) != ["mix", "ffn"]:
            raise SpecError(f"a Reversible layer has the parts mix and ffn, and not {', '.join(self.parts)}")
        if self.tie:
            raise SpecError(
                f"a Reversible layer is tied as {self.tie!r}, and layers that are computed again cannot be; use Layer"
            )
        for name, part in self.parts.items():
            if part.out != NoNorm():
                raise SpecError(f"{name}.out={part.out!r} norms a sum, which cannot be undone; use pre or post")
            if not part.mixer.alone:
                raise SpecError(
                    f"{name}.mixer is {part.mixer!r}, which shares values with other layers or with the loss; "
                    "layers that are computed again cannot, so use Layer"
                )

    @property
    def streams(self) -> int:
        """Two."""
        return 2

    def build(self, width: int) -> ReversibleModule:
        """Returns the module for two streams of ``width``."""
        return ReversibleModule(self, width)


class ReversibleModule(LayerModule):
    """The module of `Reversible`."""

    again = 1

    def forward(
        self, x: Float[Tensor, "B T _"], ctx: Context, state: LayerState | None = None
    ) -> Float[Tensor, "B T _"]:
        """Returns both streams after this layer, side by side."""
        first, second = x.chunk(2, -1)
        first = self._added("mix", first, second, ctx, state)
        second = self._added("ffn", second, first, ctx, state)
        return torch.cat([first, second], -1)

    def _added(self, name: str, x: Tensor, read: Tensor, ctx: Context, state: LayerState | None) -> Tensor:
        part = self.part(name)
        return torch.add(x, part.delta(read, ctx, None if state is None else state[name]), alpha=part.scale)


class ReversibleDecoder(Decoder):
    """A language model of reversible layers."""

    @property
    def streams(self) -> int:
        """Two."""
        return 2

    def module(self) -> ReversibleDecoderModel:
        """Returns the model with weights that are not drawn yet."""
        return ReversibleDecoderModel(self)


class ReversibleDecoderModel(DecoderModel):
    """The module of `ReversibleDecoder`."""

    def opened(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T _"]:
        """Returns the embedding twice, side by side."""
        return torch.cat([x, x], -1)

    def through(
        self,
        layers: Iterable[nn.Module],
        x: Float[Tensor, "B T _"],
        ctx: Context,
        states: Sequence[LayerState] | None = None,
    ) -> Float[Tensor, "B T _"]:
        """Returns what layers make of the streams, without keeping what they computed, unless a compiler sees to it."""
        if states is not None or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return super().through(layers, x, ctx, states)
        every = [layer for layer in layers if isinstance(layer, LayerModule)]
        weights = [weight for part in _parts(every) for weight in part.parameters()]
        return _Reversed.apply(x, every, ctx, *weights)


class _Reversed(torch.autograd.Function):
    """Layers, whose backward computes their inputs from their outputs, part by part."""

    @staticmethod
    def forward(kept: Any, x: Tensor, layers: list[LayerModule], ctx: Context, *weights: Tensor) -> Tensor:
        kept.layers, kept.ctx, kept.chances = layers, ctx, []
        kept.cast = {
            "enabled": torch.is_autocast_enabled(x.device.type),
            "dtype": torch.get_autocast_dtype(x.device.type),
        }
        first, second = x.detach().chunk(2, -1)
        for part in _parts(layers):
            kept.chances.append(_Chance(x) if part.training else None)
            first, second = second, torch.add(first, part.delta(second, ctx), alpha=part.scale)
        out = torch.cat([first, second], -1)
        kept.save_for_backward(out)
        return out

    @staticmethod
    @once
    def backward(  # pyrefly: ignore[bad-override]: of the one output there is
        kept: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        (out,) = kept.saved_tensors
        first, second = out.chunk(2, -1)
        grad_first, grad_second = grad.chunk(2, -1)
        found: list[list[Tensor | None]] = []
        for part, chance in zip(reversed(list(_parts(kept.layers))), reversed(kept.chances), strict=True):
            # The part made `second` of what was before it and of `first`.
            with torch.enable_grad(), torch.autocast(out.device.type, **kept.cast), _again(chance):
                read = first.detach().requires_grad_()
                # Modules see a view: hooks that count their operations cannot follow a leaf.
                added = part.delta(read.view_as(read), kept.ctx) * part.scale
            weights = [weight for weight in part.parameters() if weight.requires_grad]
            grad_read, *of_weights = torch.autograd.grad(added, [read, *weights], grad_second.to(added.dtype))
            by_weight = dict(zip(map(id, weights), of_weights, strict=True))
            found.insert(0, [by_weight.get(id(weight)) for weight in part.parameters()])
            first, second = second - added.detach(), first
            grad_first, grad_second = grad_second, grad_first + grad_read
        return torch.cat([grad_first, grad_second], -1), None, None, *(g for part in found for g in part)


class _Chance:
    """The state of the generators from which dropout draws."""

    def __init__(self, x: Tensor) -> None:
        self.cpu = torch.get_rng_state()
        self.devices, self.states = get_device_states(x)


@contextmanager
def _again(chance: _Chance | None) -> Iterator[None]:
    """Draws once more what was drawn then."""
    with ExitStack() as stack:
        if chance is not None:
            stack.enter_context(torch.random.fork_rng(chance.devices))
            torch.set_rng_state(chance.cpu)
            set_device_states(chance.devices, chance.states)
        yield


def _parts(layers: Sequence[LayerModule]) -> Iterator[ResidualPart]:
    """Yields the parts in the order in which they run; each reads one stream and adds to the other, in turn."""
    for layer in layers:
        yield layer.part("mix")
        yield layer.part("ffn")
