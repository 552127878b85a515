"""S5: one state space for all channels, whose states turn and fade at rates that no token changes, and a gate after it.

    h_t = exp(a d) h_{t-1} + (exp(a d) - 1) / a (B u_t);   y_t = 2 Re(C h_t) + D u_t
    out = z * sigmoid(W_g z),   z = act(y)

B and C are complex, kept as real and imaginary parts beside each other. They are drawn in the basis of the states: the
paper draws them before a unitary change of basis, which makes much the same. Source: Smith et al. 2022 (S5,
arXiv:2208.04933), section 3 and appendix G. Letters: N pairs of states.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from groundup.context import Context
from groundup.errors import SpecError
from groundup.mixers.base import Mixer, MixerSpec
from groundup.mixers.s4 import TurningState
from groundup.ops import linear_scan
from groundup.parts.act import Act, activation
from groundup.parts.linear import Linear
from groundup.parts.rates import Turning, check_steps
from groundup.parts.spectrum import LegS, Spectrum
from groundup.specs import Size


class S5(MixerSpec):
    """A diagonal state space for all channels.

    Attributes:
        states: the states, two for each pair.
        blocks: in how many blocks of states the rates of the spectrum come again.
        spectrum: at which rates they first fade and turn.
        act: the activation after it, a key of `groundup.parts.act.ACTIVATIONS`.
        steps: between which steps the first ones, one a state, are drawn.
    """

    states: Size
    blocks: Size = 1
    spectrum: Spectrum = LegS()
    act: Act = "gelu"
    steps: tuple[float, float] = (1e-3, 1e-1)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_steps(self.steps)
        if self.states % (2 * self.blocks):
            raise SpecError(f"states={self.states} are not pairs in blocks={self.blocks} alike; change one of them")

    def build(self, width: int) -> S5Mixer:
        """Returns the module for a stream of ``width``."""
        return S5Mixer(self, width)


class S5Mixer(Mixer):
    """The module of `S5`."""

    def __init__(self, spec: S5, width: int) -> None:
        super().__init__()
        size = (spec.blocks, spec.states // (2 * spec.blocks))
        self.turning = Turning(*size, steps=size, between=spec.steps, spectrum=spec.spectrum)
        self.enter = Linear(width, spec.states, bias=False, role="in")
        self.read = Linear(spec.states, width, bias=False, role="in")
        self.skip = nn.Parameter(torch.ones(width))
        self.act = activation(spec.act)
        self.gate = Linear(width, width, bias=False, role="in")

    def draw(self, generator: torch.Generator) -> None:
        """Draws the maps into states and out of them so that they keep the spread of what they read."""
        for linear in (self.enter, self.read):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5, generator=generator)

    def forward(  # pyrefly: ignore[bad-override]: a mixer is given the kind of state that it makes
        self, x: Float[Tensor, "B T D"], ctx: Context, state: TurningState | None = None
    ) -> Float[Tensor, "B T D"]:
        """Returns the mixed stream; a state is continued, in place."""
        log, into = (t.flatten() for t in self.turning())  # (N,)
        entered = torch.view_as_complex(self.enter(x).to(log.real.dtype).unflatten(-1, (-1, 2))) * into  # (B, T, N)
        keep = log.exp()[None, None]
        if ctx.starts is not None:
            keep = keep * ~ctx.starts[..., None]
        if ctx.real is not None:
            keep = torch.where(ctx.real[..., None], keep, 1.0)
            entered = entered * ctx.real[..., None]
        first = torch.zeros_like(entered[:, 0]) if state is None else torch.view_as_complex(state.h).to(log.dtype)
        h = linear_scan.scan(keep, entered, first)
        if state is not None:
            state.h.copy_(torch.view_as_real(h[:, -1]))
        pairs = torch.stack([h.real, -h.imag], -1).flatten(2)
        y = 2 * self.read(pairs.to(x.dtype))
        z = self.act(torch.addcmul(y, self.skip.to(y.dtype), x))
        return z * self.gate(z).sigmoid()

    def new_state(
        self, rows: int, max_len: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> TurningState:
        """Returns the state of ``rows`` rows that have read nothing, of the same size for any ``max_len``."""
        wide = torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)
        return TurningState(h=torch.zeros(rows, self.turning.fade.numel(), 2, device=device, dtype=wide))
