"""How fast the state of linear attention forgets: the logarithm of what a token leaves of it, at most 0.

    FixedDecay:    log(1 - 2^-(first + h))              of head h             Sun et al. 2023 (arXiv:2307.08621)
    HeadDecay:     -exp(rate) softplus(w x + bias)      of a head, by token   Yang et al. 2024 (arXiv:2412.06464)
    LowRankDecay:  logsigmoid(W_2 W_1 x + b) / slow     of each key value     Yang et al. 2023 (arXiv:2312.06635)

All are computed in float32 or wider.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.errors import SpecError
from groundup.parts.linear import Linear
from groundup.specs import Positive, Size, Spec


class Decay(Spec, abstract=True):
    """How fast a state forgets."""

    def build(self, width: int, heads: int, key_width: int) -> DecayModule:
        """Returns the module for a stream of ``width`` and so many heads with keys of ``key_width``."""
        raise NotImplementedError(type(self).__name__)


class DecayModule(nn.Module):
    """Log decays of tokens; these are none.

    Attributes:
        count: how many numbers the decay of a head is.
    """

    count = 1

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "#B H #T #K"] | None:
        """Returns the log decays; None where nothing decays."""
        return None


class NoDecay(Decay):
    """Forgets nothing."""

    def build(self, width: int, heads: int, key_width: int) -> DecayModule:
        """Returns the module, which has no parameters."""
        return DecayModule()


class FixedDecay(Decay):
    """Forgets at a rate of each head's own, which is not learnt (RetNet).

    Attributes:
        first: the first head keeps ``1 - 2^-first`` of its state at each token.
        last: the last one keeps ``1 - 2^-last``, and those between them lie evenly; None means that each head loses
            half as much as the one before it.
    """

    first: Positive = 5.0
    last: Positive | None = None

    def build(self, width: int, heads: int, key_width: int) -> DecayModule:
        """Returns the module, which has no parameters."""
        return FixedDecayModule(self, heads)


class FixedDecayModule(DecayModule):
    """The module of `FixedDecay`."""

    def __init__(self, spec: FixedDecay, heads: int) -> None:
        super().__init__()
        last = spec.first + heads - 1 if spec.last is None else spec.last
        powers = [spec.first + (last - spec.first) * head / max(heads - 1, 1) for head in range(heads)]
        self.logs = [math.log1p(-(2.0**-power)) for power in powers]

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "#B H #T #K"]:
        """Returns the log decays of the heads."""
        wide = torch.promote_types(x.dtype, torch.float32)
        return torch.tensor(self.logs, dtype=wide, device=x.device)[None, :, None, None]


class HeadDecay(Decay):
    """Forgets at a rate of each head's own, times a step that the token chooses (Mamba-2, Gated DeltaNet).

    Attributes:
        rates: between which rates ``exp(rate)`` first lies, evenly.
        steps: between which steps ``softplus(bias)`` first lies, evenly in their logarithm.
    """

    rates: tuple[float, float] = (0.0, 16.0)
    steps: tuple[float, float] = (0.001, 0.1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.rates[0] < self.rates[1] and 0 < self.steps[0] < self.steps[1]):
            raise SpecError(f"rates and steps of {self!r} must rise, from at least 0 and from above 0")

    def build(self, width: int, heads: int, key_width: int) -> DecayModule:
        """Returns the module for a stream of ``width``."""
        return HeadDecayModule(self, width, heads)


class HeadDecayModule(DecayModule):
    """The module of `HeadDecay`."""

    def __init__(self, spec: HeadDecay, width: int, heads: int) -> None:
        super().__init__()
        self.spec = spec
        self.step = Linear(width, heads, bias=False, role="in")
        self.rate = nn.Parameter(torch.zeros(heads))
        self.bias = nn.Parameter(torch.zeros(heads))

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> None:
        """Draws the first rates and steps."""
        low, high = self.spec.rates
        nn.init.uniform_(self.rate, max(low, 1e-4 * high), high, generator=generator).log_()
        nn.init.uniform_(self.bias, *map(math.log, self.spec.steps), generator=generator).exp_().expm1_().log_()

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "#B H #T #K"]:
        """Returns the log decays of the heads at every token."""
        wide = torch.promote_types(x.dtype, torch.float32)
        step = F.softplus(self.step(x).to(wide) + self.bias)  # (B, T, H)
        return (-self.rate.to(wide).exp() * step).mT[..., None]


class LowRankDecay(Decay):
    """Forgets each key value at a rate that the token chooses, through a narrow map (GLA).

    Attributes:
        rank: the width between the two maps.
        slow: what the logarithms are divided by.
    """

    rank: Size = 16
    slow: Positive = 16.0

    def build(self, width: int, heads: int, key_width: int) -> DecayModule:
        """Returns the module for a stream of ``width``."""
        return LowRankDecayModule(self, width, heads, key_width)


class LowRankDecayModule(DecayModule):
    """The module of `LowRankDecay`."""

    def __init__(self, spec: LowRankDecay, width: int, heads: int, key_width: int) -> None:
        super().__init__()
        self.count, self.slow = key_width, spec.slow
        self.narrow = Linear(width, spec.rank, bias=False, role="in")
        self.wide = Linear(spec.rank, heads * key_width, bias=True, role="in")

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "#B H #T #K"]:
        """Returns the log decays of all key values at every token."""
        gate = self.wide(self.narrow(x))
        gate = gate.to(torch.promote_types(gate.dtype, torch.float32))
        return (F.logsigmoid(gate) / self.slow).unflatten(-1, (-1, self.count)).transpose(1, 2)
