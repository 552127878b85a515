"""S4 and S4D: a state space of each channel that no token changes, and a gate after it.

    S4:   h_t = A h_{t-1} + B u_t,   A and B of (diag(a) - p p*) and b by the bilinear rule
    S4D:  h_t = exp(a d) h_{t-1} + (exp(a d) - 1) / a u_t
    y_t = 2 Re(c . h_t) + D u_t;   out = (W_o z + b) * sigmoid(W_g z + g),   z = act(y)

S4's matrix remembers by Legendre polynomials; S4D leaves out its low-rank part p p*, and the inputs' weights, of which
only products with c matter. Sources: Gu et al. 2021 (S4, arXiv:2111.00396), sections 2 and 3.4; Gu et al. 2022 (S4D,
arXiv:2206.11893), section 4. Letters: E channels, N pairs of states of a channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from groundup.context import Context
from groundup.errors import SpecError
from groundup.mixers.base import Mixer, MixerSpec
from groundup.ops import diagonal_scan, low_rank_scan
from groundup.parts.act import Act, activation
from groundup.parts.linear import Linear
from groundup.parts.rates import Remembering, Turning, check_steps
from groundup.parts.spectrum import Lin, Spectrum
from groundup.specs import Size
from groundup.state import State


class Channels(MixerSpec, abstract=True):
    """A state space of each channel.

    Attributes:
        states: the states of a channel, two for each pair.
        act: the activation after it, a key of `groundup.parts.act.ACTIVATIONS`.
        bias: whether the maps after it have biases.
        steps: between which steps the first ones are drawn.
    """

    states: Size = 64
    act: Act = "gelu"
    bias: bool = True
    steps: tuple[float, float] = (1e-3, 1e-1)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.steps)
        if self.states % 2:
            raise SpecError(f"states={self.states} is odd, and states come in pairs; choose an even number")


class S4(Channels):
    """A state space of each channel that starts as the matrix which remembers by Legendre polynomials."""

    def build(self, width: int) -> ChannelsMixer:
        """Returns the module for a stream of ``width``."""
        return S4Mixer(self, width)


class S4D(Channels):
    """A diagonal state space of each channel.

    Attributes:
        spectrum: at which rates the states first fade and turn.
    """

    spectrum: Spectrum = Lin()

    def build(self, width: int) -> ChannelsMixer:
        """Returns the module for a stream of ``width``."""
        return S4DMixer(self, width)


@dataclass
class TurningState(State):
    """The states as real and imaginary parts, which are long sums in float32 or wider."""

    h: Float[Tensor, "B *states 2"]

    @property
    def rewinds(self) -> bool:
        """False: what was added up cannot be taken apart again."""
        return False


class ChannelsMixer(Mixer):
    """What both have around the recurrence."""

    scan: ClassVar[ModuleType]

    def __init__(self, spec: Channels, width: int) -> None:
        super().__init__()
        self.read = nn.Parameter(torch.empty(width, spec.states // 2, 2))
        self.skip = nn.Parameter(torch.ones(width))
        self.act = activation(spec.act)
        self.out = Linear(width, width, bias=spec.bias, role="out")
        self.gate = Linear(width, width, bias=spec.bias, role="in")

    def draw(self, generator: torch.Generator) -> None:
        """Draws how states are read: a complex normal of variance one."""
        nn.init.normal_(self.read, std=0.5**0.5, generator=generator)

    def forward(  # pyrefly: ignore[bad-override]: a mixer is given the kind of state that it makes
        self, x: Float[Tensor, "B T D"], ctx: Context, state: TurningState | None = None
    ) -> Float[Tensor, "B T D"]:
        """Returns the mixed stream; a state is continued, in place."""
        wide = torch.promote_types(self.read.dtype, torch.float32)
        c = torch.view_as_complex(self.read.to(wide))
        before = None if state is None else torch.view_as_complex(state.h).to(c.dtype)
        y, after = self.scan.chunked(x, *self.recurrence(c), before=before, starts=ctx.starts, lengths=ctx.lengths)
        if state is not None:
            state.h.copy_(torch.view_as_real(after))
        z = self.act(torch.addcmul(y, self.skip.to(y.dtype), x))
        return self.out(z) * self.gate(z).sigmoid()

    def recurrence(self, c: Complex[Tensor, "D N"]) -> tuple[Any, ...]:
        """Returns what the scan is given besides the stream, where states are read by c."""
        raise NotImplementedError(type(self).__name__)

    def new_state(
        self, rows: int, max_len: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> TurningState:
        """Returns the state of ``rows`` rows that have read nothing, of the same size for any ``max_len``."""
        wide = torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)
        return TurningState(h=torch.zeros(rows, *self.read.shape, device=device, dtype=wide))

    def mix_flops(self, tokens: int, seen: int) -> int:
        """Returns the operations of the products within chunks of tokens and between them."""
        channels, pairs, _ = self.read.shape
        return self.scan.flops(tokens, channels=channels, states=pairs)

    def mix_backward_flops(self, tokens: int, seen: int) -> int:
        """Returns those of the backward, which begins at zeros and ends where nothing reads the states."""
        channels, pairs, _ = self.read.shape
        return self.scan.backward_flops(tokens, channels=channels, states=pairs)


class S4Mixer(ChannelsMixer):
    """The module of `S4`."""

    scan = low_rank_scan

    def __init__(self, spec: S4, width: int) -> None:
        super().__init__(spec, width)
        self.remembering = Remembering(width, spec.states // 2, between=spec.steps)

    def recurrence(self, c: Complex[Tensor, "D N"]) -> tuple[Any, ...]:
        """Returns A, B and c."""
        return *self.remembering.matrix(), c


class S4DMixer(ChannelsMixer):
    """The module of `S4D`."""

    scan = diagonal_scan

    def __init__(self, spec: S4D, width: int) -> None:
        super().__init__(spec, width)
        self.turning = Turning(width, spec.states // 2, steps=(width, 1), between=spec.steps, spectrum=spec.spectrum)

    def recurrence(self, c: Complex[Tensor, "D N"]) -> tuple[Any, ...]:
        """Returns the logarithm of what a token leaves of a state, and c with that by which inputs enter."""
        log, enter = self.turning()
        return log, c * enter
