"""What recurrent decoders make of a memory: a summary of it, or a mean of its tokens by how well they fit.

    Summary:        y_t = W m_last                          the same for all tokens: no attention
    Aligned:        y_t = tanh(W_c c_t + W_h x_t),          c_t = sum_j softmax_j(align(x_t, m_j)) m_j
    AttentiveGRU:   y_t = W s_t,   s_t = GRU([x_t; c_t], s_{t-1}),   c_t as above of s_{t-1},   s_0 = tanh(W_0 m_first)

Sources: Cho et al. 2014 (arXiv:1406.1078), section 2.2; Luong et al. 2015 (arXiv:1508.04025), section 3.1; Bahdanau et
al. 2015 (arXiv:1409.0473), section 3.1 and appendix A. Left out: Luong's input feeding and local attention, Bahdanau's
maxout before the head. An `AttentiveGRU` looks before it moves on, so its tokens are read one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.context import Context
from groundup.errors import GenerationError
from groundup.mixers.base import Mixer, MixerSpec
from groundup.ops.recurrent import Memory, step
from groundup.parts.align import Additive, Align, Dot, read
from groundup.parts.linear import Linear
from groundup.specs import Size
from groundup.state import State


def _memory(ctx: Context) -> Tensor:
    if ctx.memory is None:
        raise GenerationError("the decoder reads another text, and none was given; give source=")
    return ctx.memory


class Summary(MixerSpec):
    """The last token of the memory, for every token alike."""

    @property
    def reads_memory(self) -> bool:
        """True."""
        return True

    def build(self, width: int) -> SummaryMixer:
        """Returns the module for a stream and a memory of ``width``."""
        return SummaryMixer(width)


@dataclass
class SummaryState(State):
    """What is known of the memory."""

    summary: Float[Tensor, "B 1 D"]

    def rewind(self, length: Tensor) -> None:
        """Forgets nothing: the memory does not grow with the tokens."""


class SummaryMixer(Mixer):
    """The module of `Summary`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.value = Linear(width, width, bias=False, role="out")

    def forward(  # pyrefly: ignore[bad-override]: a mixer is given the kind of state that it makes
        self, x: Float[Tensor, "B T D"], ctx: Context, state: SummaryState | None = None
    ) -> Float[Tensor, "B T D"]:
        """Returns the summary, at every token."""
        summary = self._summary(ctx) if state is None else state.summary
        return summary.to(x.dtype).expand(-1, x.shape[1], -1)

    def _summary(self, ctx: Context) -> Tensor:
        values = self.value(_memory(ctx))
        if ctx.memory_lengths is None:
            return values[:, -1:]
        rows = torch.arange(len(values), device=values.device)
        return values[rows, ctx.memory_lengths - 1][:, None]

    def remember(self, ctx: Context, *, dtype: torch.dtype | None = None) -> SummaryState:
        """Returns the state with the summary of the context's memory."""
        summary = self._summary(ctx)
        return SummaryState(summary=summary.to(dtype or summary.dtype))

    def memory_maps(self) -> Sequence[nn.Module]:
        """Returns the map of the summary."""
        return (self.value,)


class Aligned(MixerSpec):
    """A mean of the memory's tokens, by how well they fit, beside the token itself.

    Attributes:
        align: how well they fit.
    """

    align: Align = Dot()

    @property
    def reads_memory(self) -> bool:
        """True."""
        return True

    def build(self, width: int) -> AlignedMixer:
        """Returns the module for a stream and a memory of ``width``."""
        return AlignedMixer(self, width)


class Read(NamedTuple):
    """A memory, the keys made of it, and how many of its tokens are real."""

    memory: Tensor
    keys: Tensor
    lengths: Tensor


@dataclass
class AlignedState(State):
    """The memory, the keys made of it, and how many of its tokens are real."""

    memory: Float[Tensor, "B M D"]
    keys: Float[Tensor, "B M A"]
    lengths: Int[Tensor, "B"]

    def rewind(self, length: Tensor) -> None:
        """Forgets nothing: the memory does not grow with the tokens."""


class AlignedMixer(Mixer):
    """The module of `Aligned`."""

    def __init__(self, spec: Aligned, width: int) -> None:
        super().__init__()
        self.width = width
        self.align = spec.align.build(width, width)
        self.context = Linear(width, width, bias=False, role="in")
        self.own = Linear(width, width, bias=False, role="in")

    def forward(  # pyrefly: ignore[bad-override]: a mixer is given the kind of state that it makes
        self, x: Float[Tensor, "B T D"], ctx: Context, state: AlignedState | None = None
    ) -> Float[Tensor, "B T D"]:
        """Returns what the tokens read in the memory, beside themselves."""
        if state is None:
            memory = _memory(ctx)
            keys, lengths = self.align.keys(memory), ctx.memory_lengths
        else:
            memory, keys, lengths = state.memory.to(x.dtype), state.keys.to(x.dtype), state.lengths
        found = read(self.align(x, keys), memory, lengths)
        return torch.tanh(self.context(found) + self.own(x))

    def remember(self, ctx: Context, *, dtype: torch.dtype | None = None) -> AlignedState:
        """Returns the state with the context's memory."""
        known = _known(ctx, self.align.keys(_memory(ctx)), dtype)
        return AlignedState(memory=known.memory, keys=known.keys, lengths=known.lengths)

    def memory_maps(self) -> Sequence[nn.Module]:
        """Returns the map of the keys, if there is one."""
        return self.align.memory_maps()

    def mix_flops(self, tokens: int, seen: int) -> int:
        """Returns the operations of scores and weighted sums over a memory of ``seen`` tokens."""
        return self.align.mix_flops(tokens, seen) + 2 * tokens * seen * self.width


def _known(ctx: Context, keys: Tensor, dtype: torch.dtype | None) -> Read:
    memory = _memory(ctx)
    everything = torch.full((len(memory),), memory.shape[1], device=memory.device)
    lengths = everything if ctx.memory_lengths is None else ctx.memory_lengths
    return Read(memory.to(dtype or memory.dtype), keys.to(dtype or keys.dtype), lengths)


class AttentiveGRU(MixerSpec):
    """Gated recurrent units that look into the memory, by what they have in mind, before each token.

    Attributes:
        hidden: the width of their state.
        align: how well their state and a token of the memory fit.
    """

    hidden: Size
    align: Align = Additive(hidden=1000)

    @property
    def reads_memory(self) -> bool:
        """True."""
        return True

    def build(self, width: int) -> AttentiveGRUMixer:
        """Returns the module for a stream and a memory of ``width``."""
        return AttentiveGRUMixer(self, width)


@dataclass
class AttentiveState(State):
    """The last output; the memory, the keys made of it, and how many of its tokens are real."""

    h: Float[Tensor, "B H"]
    memory: Float[Tensor, "B M D"]
    keys: Float[Tensor, "B M A"]
    lengths: Int[Tensor, "B"]

    @property
    def rewinds(self) -> bool:
        """False: what was read cannot be taken out again."""
        return False


class AttentiveGRUMixer(Mixer):
    """The module of `AttentiveGRU`."""

    def __init__(self, spec: AttentiveGRU, width: int) -> None:
        super().__init__()
        self.width = width
        self.align = spec.align.build(spec.hidden, width)
        self.begin = Linear(width, spec.hidden, bias=True, role="in")
        self.input = Linear(width, 3 * spec.hidden, bias=True, role="in")
        self.context = Linear(width, 3 * spec.hidden, bias=False, role="in")
        self.recurrent = Linear(spec.hidden, 3 * spec.hidden, bias=True, role="in")
        self.out = Linear(spec.hidden, width, bias=False, role="out")

    def forward(  # pyrefly: ignore[bad-override]: a mixer is given the kind of state that it makes
        self, x: Float[Tensor, "B T D"], ctx: Context, state: AttentiveState | None = None
    ) -> Float[Tensor, "B T D"]:
        """Returns what the units make of the stream; with a state, after what it holds."""
        if state is None:
            memory = _memory(ctx)
            h, keys, lengths = self._first(memory), self.align.keys(memory), ctx.memory_lengths
        else:
            h, lengths = state.h.to(x.dtype), state.lengths
            memory, keys = state.memory.to(x.dtype), state.keys.to(x.dtype)
        outputs = []
        for t, entered in enumerate(self.input(x).unbind(1)):
            found = read(self.align(h[:, None], keys), memory, lengths)[:, 0]
            new = step("gru", entered + self.context(found), self.recurrent(h), Memory(h, h[:, :0])).h
            outputs.append(new)
            h = new if ctx.lengths is None else torch.where((t < ctx.lengths)[:, None], new, h)
        if state is not None:
            state.h.copy_(h)
        return self.out(torch.stack(outputs, 1))

    def _first(self, memory: Tensor) -> Tensor:
        return torch.tanh(self.begin(memory)[:, 0])

    def remember(self, ctx: Context, *, dtype: torch.dtype | None = None) -> AttentiveState:
        """Returns the state that has seen the context's memory and read nothing."""
        memory = _memory(ctx)
        known, h = _known(ctx, self.align.keys(memory), dtype), self._first(memory)
        return AttentiveState(h=h.to(dtype or h.dtype), memory=known.memory, keys=known.keys, lengths=known.lengths)

    def memory_maps(self) -> Sequence[nn.Module]:
        """Returns the maps of the keys and of the first state."""
        return (*self.align.memory_maps(), self.begin)

    def mix_flops(self, tokens: int, seen: int) -> int:
        """Returns the operations of scores and weighted sums over a memory of ``seen`` tokens."""
        return self.align.mix_flops(tokens, seen) + 2 * tokens * seen * self.width
