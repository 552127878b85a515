"""How weights start: one walk over the linear maps and tables of a model, with one generator."""

from __future__ import annotations

import torch
from torch import nn

from groundup.parts.linear import Linear
from groundup.specs import NotNegative, Spec


class Init(Spec, abstract=True):
    """A rule for the first values of a model's linear maps and tables."""

    def std(self, module: Linear | nn.Embedding, *, residuals: int) -> float:
        """Returns the standard deviation for one module of a model with ``residuals`` residual parts."""
        raise NotImplementedError(type(self).__name__)

    def fill(self, model: nn.Module, *, residuals: int, seed: int) -> None:
        """Draws all weights of linear maps and tables, in place, in the model's own order; biases start at zero."""
        generators: dict[torch.device, torch.Generator] = {}
        for module in model.modules():
            if isinstance(module, Linear | nn.Embedding) and not module.weight.is_meta:
                device = module.weight.device
                generator = generators.setdefault(device, torch.Generator(device).manual_seed(seed))
                std = self.std(module, residuals=residuals)
                nn.init.normal_(module.weight, std=std, generator=generator)


class ScaledNormal(Init):
    """A normal of one width, smaller where a map writes to the residual stream (Radford et al. 2019, section 2.3).

    Maps that write to the stream start at ``deviation / sqrt(residual parts)``, so that the stream's scale does not
    grow with depth.
    """

    deviation: NotNegative = 0.02

    def std(self, module: Linear | nn.Embedding, *, residuals: int) -> float:
        """Returns the standard deviation for one module."""
        writes = isinstance(module, Linear) and module.role == "out"
        return self.deviation / residuals**0.5 if writes and residuals else self.deviation
