"""Recurrent networks: Elman's, gated recurrent units and long short-term memory.

    y_t = W_out h_t,   h_t = network(x_t, h_{t-1})       the equations stand in `groundup.ops.recurrent`

Sources: Elman 1990 (Cognitive Science 14:179); Cho et al. 2014 (arXiv:1406.1078); Hochreiter and Schmidhuber 1997
(Neural Computation 9:1735). Letters: H hidden. Left out: peepholes, and projections inside the recurrence.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from groundup.context import Context
from groundup.errors import SpecError
from groundup.mixers.base import Mixer, MixerSpec
from groundup.ops import recurrent
from groundup.ops.recurrent import GATES, Memory, Weights
from groundup.parts.linear import Linear
from groundup.specs import Size
from groundup.state import State


class Recurrent(MixerSpec, abstract=True):
    """A network whose output at a token is its input at the next.

    Attributes:
        hidden: the width of its output, which a linear map brings back to that of the stream; None means the width of
            the stream, and no such map.
        bias: whether the network has biases.
    """

    hidden: Size | None = None
    bias: bool = True

    @property
    def cell(self) -> str:
        """The network's equations, a key of `groundup.ops.recurrent.KERNELS`."""
        raise NotImplementedError(type(self).__name__)

    def build(self, width: int) -> RecurrentMixer:
        """Returns the module for a stream of ``width``."""
        return RecurrentMixer(self, width)


class RNN(Recurrent):
    """Elman's network: one map of the input and the last output.

    Attributes:
        act: the activation, ``tanh`` or ``relu``.
    """

    act: str = "tanh"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.act not in ("tanh", "relu"):
            raise SpecError(f"act={self.act!r} is not known to an RNN; choose tanh or relu")

    @property
    def cell(self) -> str:
        """The network's equations."""
        return f"rnn_{self.act}"


class GRU(Recurrent):
    """Gated recurrent units: a gate mixes the last output and a new one, of which another gate resets the past."""

    @property
    def cell(self) -> str:
        """The network's equations."""
        return "gru"


class LSTM(Recurrent):
    """Long short-term memory: gates write to a cell, forget what is in it and show it."""

    @property
    def cell(self) -> str:
        """The network's equations."""
        return "lstm"


@dataclass
class RecurrentState(State):
    """The last output; and the cell of an LSTM, a long sum that is kept in float32 or wider (C is 0 without one)."""

    h: Float[Tensor, "B H"]
    c: Float[Tensor, "B C"]

    @property
    def rewinds(self) -> bool:
        """False: what was read cannot be taken out again."""
        return False


class RecurrentMixer(Mixer):
    """The module of `RNN`, `GRU` and `LSTM`."""

    def __init__(self, spec: Recurrent, width: int) -> None:
        super().__init__()
        hidden = spec.hidden or width
        self.cell, self.hidden = spec.cell, hidden
        rows = GATES[spec.cell] * hidden
        self.input = Linear(width, rows, bias=spec.bias, role="in")
        # One bias is enough, but where a gate comes between the two.
        self.recurrent = Linear(hidden, rows, bias=spec.bias and spec.cell == "gru", role="in")
        self.out = nn.Identity() if spec.hidden is None else Linear(hidden, width, bias=False, role="out")

    def forward(  # pyrefly: ignore[bad-override]: a mixer is given the kind of state that it makes
        self, x: Float[Tensor, "B T D"], ctx: Context, state: RecurrentState | None = None
    ) -> Float[Tensor, "B T D"]:
        """Returns what the network makes of the stream; with a state, after what it holds."""
        if state is None:
            y, _ = recurrent.run(self.cell, x, self._weights(), self._nothing(x), starts=ctx.starts)
            return self.out(y)
        memory = Memory(state.h, state.c)
        y, memory = recurrent.run(self.cell, x, self._weights(), memory, lengths=ctx.lengths)
        state.h.copy_(memory.h)
        state.c.copy_(memory.c)
        return self.out(y)

    def _weights(self) -> Weights:
        maps = (self.input, self.recurrent)
        biases = (m.weight.new_zeros(m.out_features) if m.bias is None else m.bias for m in maps)
        return Weights(self.input.weight, self.recurrent.weight, *biases)

    def _nothing(self, x: Tensor) -> Memory:
        zeros = x.new_zeros(x.shape[0], self.hidden)
        return Memory(zeros, zeros)

    def new_state(
        self, rows: int, max_len: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> RecurrentState:
        """Returns the memory of ``rows`` rows that have read nothing; it does not grow."""
        dtype = dtype or torch.get_default_dtype()
        wide = torch.promote_types(dtype, torch.float32)
        cell = self.hidden if self.cell == "lstm" else 0
        return RecurrentState(
            h=torch.zeros(rows, self.hidden, device=device, dtype=dtype),
            c=torch.zeros(rows, cell, device=device, dtype=wide),
        )

    def mix_backward_flops(self, tokens: int, seen: int) -> int:
        """Returns less than nothing: the output before the first token is zeros, which have no gradient."""
        return -self.recurrent.flops_per_token
