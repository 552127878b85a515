"""What state spaces learn besides maps: the rates at which states fade, and how far a token moves them.

    a = -exp(log);   d = max(softplus(raw + bias), least),   softplus(bias) log-uniform between two steps at the start

Sources: Gu et al. 2022 (S4D, arXiv:2206.11893), section 4; Gu and Dao 2023 (Mamba, arXiv:2312.00752), section 3.6.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.errors import SpecError
from groundup.ops.low_rank_scan import Matrix
from groundup.parts.spectrum import LegS, Spectrum, legendre


def check_steps(steps: tuple[float, float]) -> None:
    """Refuses what steps cannot be drawn between.

    Raises:
        SpecError: the two are not positive numbers, or the larger one comes first.
    """
    if not 0 < steps[0] <= steps[1]:
        raise SpecError(f"steps={steps} must be two positive numbers, the smaller one first")


class Rates(nn.Module):
    """Rates below zero, as their logarithms; they start at -1, -2, -3, ... along the last axis."""

    def __init__(self, *size: int) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.arange(1, size[-1] + 1).float().log().expand(size).clone())

    def forward(self) -> Float[Tensor, "*size"]:
        """Returns the rates, in float32 or wider."""
        return -self.log.to(torch.promote_types(self.log.dtype, torch.float32)).exp()


class DrawnRates(Rates):
    """Rates below zero that start evenly between -16 and -1, as the authors of Mamba-2 draw them.

    Source: Dao and Gu 2024 (arXiv:2405.21060), their code: ``A_init_range`` of mamba_ssm's Mamba2.
    """

    def draw(self, generator: torch.Generator) -> None:
        """Draws the first rates."""
        first = nn.init.uniform_(torch.empty_like(self.log), 1.0, 16.0, generator=generator)
        with torch.no_grad():
            self.log.copy_(first.log())


class Steps(nn.Module):
    """How far each token moves the states of a channel or head: positive, and zero for padding."""

    def __init__(self, size: int, *, between: tuple[float, float], least: float = 0.0) -> None:
        super().__init__()
        self.between, self.least = between, least
        self.bias = nn.Parameter(torch.zeros(size))

    def draw(self, generator: torch.Generator) -> None:
        """Draws the first steps log-uniformly and sets the bias to what gives them."""
        low, high = (math.log(step) for step in self.between)
        step = nn.init.uniform_(torch.empty_like(self.bias), low, high, generator=generator).exp()
        with torch.no_grad():
            self.bias.copy_(step + (-torch.expm1(-step)).log())

    def forward(self, raw: Float[Tensor, "B T E"], real: Tensor | None) -> Float[Tensor, "B T E"]:
        """Returns the steps, in float32 or wider; ``real`` (B, T) says which tokens are no padding, None means all."""
        wide = torch.promote_types(raw.dtype, torch.float32)
        step = F.softplus(raw.to(wide) + self.bias.to(wide))
        step = step.clamp(min=self.least) if self.least else step
        return step if real is None else step * real[:, :, None]


class Turning(nn.Module):
    """Rates at which pairs of states fade and turn, and the steps between tokens, each as what gives it.

    a = -exp(fade) + i turn;   d = exp(step)

    Args:
        size: of the rates; the last axis has those of the spectrum.
        steps: the size of the steps, as it is spread over that of the rates.
        between: between which steps the first ones are drawn.
        spectrum: the first rates.
    """

    def __init__(self, *size: int, steps: tuple[int, ...], between: tuple[float, float], spectrum: Spectrum) -> None:
        super().__init__()
        self.between, self.spectrum = between, spectrum
        self.fade = nn.Parameter(torch.empty(size))
        self.turn = nn.Parameter(torch.empty(size))
        self.step = nn.Parameter(torch.empty(steps))

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> None:
        """Starts at the rates of the spectrum, and draws steps evenly in their logarithm."""
        fades, turns = self.spectrum.rates(self.fade.shape[-1])
        self.fade.copy_(fades.log().to(self.fade).expand_as(self.fade))
        self.turn.copy_(turns.to(self.turn).expand_as(self.turn))
        nn.init.uniform_(self.step, *map(math.log, self.between), generator=generator)

    def rates(self) -> tuple[Complex[Tensor, "*size"], Float[Tensor, "*steps"]]:
        """Returns a and d, in float32 or wider."""
        wide = torch.promote_types(self.fade.dtype, torch.float32)
        return torch.complex(-self.fade.to(wide).exp(), self.turn.to(wide)), self.step.to(wide).exp()

    def forward(self) -> tuple[Complex[Tensor, "*size"], Complex[Tensor, "*size"]]:
        """Returns a d, the logarithm of what a token leaves of a state, and (exp(a d) - 1) / a, what it enters by.

        Inputs are held between tokens (zero-order hold); both are in float32 or wider.
        """
        wide = torch.promote_types(self.fade.dtype, torch.float32)
        # Of a state that hardly moves, the difference keeps few of the digits of float32, and its gradient fewer.
        exact = wide if self.fade.device.type == "mps" else torch.float64
        a = torch.complex(-self.fade.to(exact).exp(), self.turn.to(exact))
        log = a * self.step.to(exact).exp()
        enter = (log.exp() - 1) / a
        of_wide = torch.promote_types(wide, torch.complex64)
        return log.to(of_wide), enter.to(of_wide)


class Remembering(Turning):
    """The matrix that remembers by Legendre polynomials, whole: diag(a) - p p*, and the vector b by which inputs enter.

    Tokens are d apart, and between them the mean of before and after counts (the bilinear rule):

        A = (1 - d/2 M)^-1 (1 + d/2 M),   B = (1 - d/2 M)^-1 d b,   M = diag(a) - p p*

    Source: Gu et al. 2021 (S4, arXiv:2111.00396), section 2.3 and appendix C.1.
    """

    def __init__(self, width: int, pairs: int, *, between: tuple[float, float]) -> None:
        super().__init__(width, pairs, steps=(width, 1), between=between, spectrum=LegS())
        self.low = nn.Parameter(torch.empty(width, pairs, 2))
        self.enter = nn.Parameter(torch.empty(width, pairs, 2))

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> None:
        """Starts as the matrix is, and draws steps evenly in their logarithm."""
        super().draw(generator)
        for parameter, vector in zip((self.low, self.enter), legendre(self.fade.shape[-1]), strict=True):
            parameter.copy_(torch.view_as_real(vector).to(parameter).expand_as(parameter))

    def matrix(self) -> tuple[Matrix, Complex[Tensor, "E N"]]:
        """Returns A and B, of a token, in float32 or wider."""
        a, step = self.rates()
        p, b = (torch.view_as_complex(t.to(step.dtype).contiguous()) for t in (self.low, self.enter))
        kept = 1 / (1 - step / 2 * a)
        read = p.conj() * kept
        share = step / 2 / (1 + step * (read * p).real.sum(-1, keepdim=True))
        pushed = share * kept * p  # (1 - d/2 M)^-1 h = kept h - pushed 2 Re(read . h)
        entering = step * (kept * b - pushed * (2 * (read * b).real.sum(-1, keepdim=True)))
        return Matrix(2 * kept - 1, 2 * pushed, read), entering
