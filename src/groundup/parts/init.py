"""How weights start: one walk over the linear maps and tables of a model, with one generator."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import nn

from groundup.parts.linear import Map
from groundup.parts.tie import Borrowed
from groundup.specs import NotNegative, Spec


@runtime_checkable
class Drawn(Protocol):
    """A module whose first weights follow a rule of its own."""

    def draw(self, generator: torch.Generator) -> None:
        """Draws them, in place."""


class Init(Spec, abstract=True):
    """A rule for the first values of a model's linear maps and tables."""

    def std(self, module: Map | nn.Embedding, *, residuals: int) -> float:
        """Returns the standard deviation for one module of a model with ``residuals`` residual parts."""
        raise NotImplementedError(type(self).__name__)

    def fill(self, model: nn.Module, *, residuals: int, seed: int) -> None:
        """Draws all weights of linear maps and tables, in place, in the model's own order; biases start at zero.

        Then modules that are `Drawn` draw theirs, which may be those of a linear map within them.
        """
        generators: dict[torch.device, torch.Generator] = {}

        def generator(device: torch.device) -> torch.Generator:
            return generators.setdefault(device, torch.Generator(device).manual_seed(seed))

        for module in model.modules():
            if not isinstance(module, Map | nn.Embedding) or module.weight is None:  # None: it borrows another's
                continue
            if not module.weight.is_meta:
                std = self.std(module, residuals=residuals)
                nn.init.normal_(module.weight, std=std, generator=generator(module.weight.device))
        for module in model.modules():
            if isinstance(module, Borrowed):
                continue
            if isinstance(module, Drawn):  # pyrefly: ignore[unsafe-overlap]: no module has another `draw`
                device = next(iter(module.parameters())).device  # pyrefly: ignore[missing-attribute]: it is a module
                if device.type != "meta":
                    module.draw(generator(device))


class ScaledNormal(Init):
    """A normal of one width, smaller where a map writes to the residual stream (Radford et al. 2019, section 2.3).

    Maps that write to the stream start at ``deviation / sqrt(residual parts)``, so that the stream's scale does not
    grow with depth.
    """

    deviation: NotNegative = 0.02

    def std(self, module: Map | nn.Embedding, *, residuals: int) -> float:
        """Returns the standard deviation for one module."""
        writes = isinstance(module, Map) and module.role == "out"
        return self.deviation / residuals**0.5 if writes and residuals else self.deviation


class FanIn(Init):
    """A normal that keeps the size of signals: maps by their inputs, as tables hold vectors of size one.

    Source: LeCun et al. 1998 (Efficient BackProp), section 4.6. For models without residuals, where each layer sees
    only what the one before it made.
    """

    def std(self, module: Map | nn.Embedding, *, residuals: int) -> float:
        """Returns the standard deviation for one module."""
        return module.in_features**-0.5 if isinstance(module, Map) else 1.0
