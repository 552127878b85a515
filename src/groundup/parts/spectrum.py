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
from jaxtyping import Complex, Float
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
        turns = torch.linalg.eigvalsh(_turning(2 * pairs))[pairs:]
        return torch.full_like(turns, 0.5), turns


def legendre(pairs: int) -> tuple[Complex[Tensor, "N"], Complex[Tensor, "N"]]:
    """Returns the vector p whose product p p* `LegS` leaves out, and the inputs' vector, in its states; on the CPU.

    The phase of each state is free; it is the one in which p is positive.
    """
    numbers = torch.arange(2 * pairs, device="cpu", dtype=torch.float64)
    basis = torch.linalg.eigh(_turning(2 * pairs)).eigenvectors[:, pairs:].mH
    low, enter = (basis @ root.to(basis.dtype) for root in ((numbers + 0.5).sqrt(), (2 * numbers + 1).sqrt()))
    phase = low.abs() / low
    return low * phase, enter * phase


def _turning(states: int) -> Complex[Tensor, "N N"]:
    """The part of HiPPO-LegS that turns, over i: -1/2 + i of this, less p p*, is the whole (appendix C.1)."""
    roots = (2 * torch.arange(states, device="cpu", dtype=torch.float64) + 1).sqrt()
    skew = -0.5 * (roots[:, None] * roots).tril(-1)
    return -1j * (skew - skew.mT)
