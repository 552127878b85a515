"""What Zamba2's shared blocks are made of: attention that also reads the tokens' first vectors, and adapted maps.

    RecallAttention:  W_o concat_h attend(W_q z, W_k z, W_v z),   z = N([x; x_0]),   W_q and its kin adapted
    AdaptedMLP:       W_down (act(W_gate x + A_1 B x) * (W_up x + A_2 B x))

x_0 is what the embedding made of the token. Heads are scaled as if they were half as wide, for they read two streams.
Adapters are each user's own where a block is shared. Sources: Glorioso et al. 2024 (Zamba, arXiv:2405.16712, section 2;
Zamba2, arXiv:2411.15242, section 2 and figure 2).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.context import EMBEDDED, Context
from groundup.errors import SpecError
from groundup.mixers.attention import Attention, AttentionMixer
from groundup.mixers.kv import KVState, WindowState
from groundup.mixers.mlp import GatedMLP, GatedMLPMixer
from groundup.parts.linear import Linear
from groundup.parts.norm import Norm, RMSNorm
from groundup.parts.tie import Adapted, Own
from groundup.specs import Count, Size
from groundup.state import State


class RecallAttention(Attention):
    """Attention over the stream beside the tokens' first vectors.

    Attributes:
        both: the norm of the two, side by side.
        rank: of what each user adds to the maps of queries, keys and values; 0 means nothing.
    """

    both: Norm = RMSNorm()
    rank: Count = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head_width % 2:
            raise SpecError(f"head_width={self.head_width} is shared by two streams; choose an even number")

    @property
    def alone(self) -> bool:
        """False: it reads what enters the first layer."""
        return False

    def build(self, width: int) -> RecallAttentionMixer:
        """Returns the module for a stream of ``width``."""
        return RecallAttentionMixer(self, width)


class RecallAttentionMixer(AttentionMixer):
    """The module of `RecallAttention`."""

    def __init__(self, spec: RecallAttention, width: int) -> None:
        super().__init__(spec, 2 * width)
        self.both = spec.both.build(2 * width)
        self.score = spec.score.build(spec.heads, spec.head_width // 2)
        self.out = Linear(spec.heads * spec.head_width, width, bias=spec.out_bias, role="out")
        for name, shared in {"q": self.q, "k": self.k, "v": self.v}.items() if spec.rank else ():
            self.add_module(name, Adapted(shared, rank=spec.rank))

    def heads(
        self, x: Float[Tensor, "B T D"], ctx: Context, state: KVState | WindowState | None
    ) -> Float[Tensor, "B T HK"]:
        """Returns what all heads read, side by side."""
        return super().heads(self.both(torch.cat([x, ctx.shared[EMBEDDED]], -1)), ctx, state)


class AdaptedMLP(GatedMLP):
    """A gated network to whose gate and values each user adds a map of one narrow vector.

    Attributes:
        rank: the width of that vector.
    """

    rank: Size

    def build(self, width: int) -> AdaptedMLPMixer:
        """Returns the module for a stream of ``width``."""
        return AdaptedMLPMixer(self, width)


class Pair(Own):
    """Two maps of one narrow vector."""

    def __init__(self, inputs: int, outputs: int, *, rank: int) -> None:
        super().__init__()
        self.low = Linear(inputs, rank, bias=False, role="in")
        self.gate = Linear(rank, outputs, bias=False, role="in")
        self.up = Linear(rank, outputs, bias=False, role="in")

    def forward(self, x: Float[Tensor, "B T D"]) -> tuple[Float[Tensor, "B T F"], Float[Tensor, "B T F"]]:
        """Returns both."""
        low = self.low(x)
        return self.gate(low), self.up(low)


class AdaptedMLPMixer(GatedMLPMixer):
    """The module of `AdaptedMLP`."""

    def __init__(self, spec: AdaptedMLP, width: int) -> None:
        super().__init__(spec, width)
        self.own = Pair(width, spec.hidden, rank=spec.rank)

    def forward(self, x: Float[Tensor, "B T D"], ctx: Context, state: State | None = None) -> Float[Tensor, "B T D"]:
        """Returns the transformed stream."""
        gate, up = self.own(x)
        return self.down(self.act(self.gate(x) + gate) * (self.up(x) + up))
