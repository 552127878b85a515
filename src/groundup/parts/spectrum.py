"""At which rates the states of a linear state space first fade and turn.

    Lin:   -1/2 + i pi n                          Gu et al. 2022 (S4D, arXiv:2206.11893), equation 9
    Inv:   -1/2 + i N/pi (N / (2 n + 1) - 1)      the same, equation 8
    LegS:  the eigenvalues, above the real axis, of the normal part of HiPPO-LegS
                                                  Gu et al. 2021 (S4, arXiv:2111.00396), appendix C.1

Letters: n = 0 .. N/2 - 1, each for itself and its conjugate.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.specs import Spec


class Spectrum(Spec, abstract=True):
    """First rates of states."""

    def rates(self, pairs: int) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
        """Returns how fast so many pairs of states fade, and how fast they turn, on the processor."""
        raise NotImplementedError(type(self).__name__)


class Lin(Spectrum):
    """Frequencies at even distances."""

    def rates(self, pairs: int) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
        """Returns how fast so many pairs of states fade, and how fast they turn."""
        turns = math.pi * torch.arange(pairs, device="cpu", dtype=torch.float64)
        return torch.full_like(turns, 0.5), turns


class Inv(Spectrum):
    """Frequencies that fall as the inverse of their number."""

    def rates(self, pairs: int) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
        """Returns how fast so many pairs of states fade, and how fast they turn."""
        numbers = torch.arange(pairs, device="cpu", dtype=torch.float64)
        turns = 2 * pairs / math.pi * (2 * pairs / (2 * numbers + 1) - 1)
        return torch.full_like(turns, 0.5), turns


class LegS(Spectrum):
    """Frequencies of the matrix that remembers by Legendre polynomials, without its low-rank part."""

    def rates(self, pairs: int) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
        """Returns how fast so many pairs of states fade, and how fast they turn."""
        roots = (2 * torch.arange(2 * pairs, device="cpu", dtype=torch.float64) + 1).sqrt()
        skew = -0.5 * (roots[:, None] * roots).tril(-1)
        turns = torch.linalg.eigvalsh(1j * (skew - skew.mT))[pairs:]
        return torch.full_like(turns, 0.5), turns
