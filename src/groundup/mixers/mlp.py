"""Feed-forward networks, each token alone.

MLP(x)      = W_down act(W_up x)                        Vaswani et al. 2017 (arXiv:1706.03762), equation 2
GatedMLP(x) = W_down (act(W_gate x) * W_up x)           Shazeer 2020 (arXiv:2002.05202), equation 6
WeighedMLP(x) = sigmoid(w x) GatedMLP(x)                the expert that all tokens share in Qwen2-MoE of transformers
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from groundup.context import Context
from groundup.mixers.base import Mixer, MixerSpec
from groundup.parts.act import Act, activation
from groundup.parts.linear import Linear
from groundup.specs import Size
from groundup.state import State


class MLP(MixerSpec):
    """Two linear maps with an activation between them.

    Attributes:
        hidden: the width between them.
        act: the activation, a key of `groundup.parts.act.ACTIVATIONS`.
        bias: whether both maps have a bias.
    """

    hidden: Size
    act: Act = "gelu"
    bias: bool = False

    def build(self, width: int) -> MLPMixer:
        """Returns the module for a stream of ``width``."""
        return MLPMixer(self, width)


class MLPMixer(Mixer):
    """The module of `MLP`."""

    def __init__(self, spec: MLP, width: int) -> None:
        super().__init__()
        self.up = Linear(width, spec.hidden, bias=spec.bias, role="in")
        self.down = Linear(spec.hidden, width, bias=spec.bias, role="out")
        self.act = activation(spec.act)

    def forward(self, x: Float[Tensor, "B T D"], ctx: Context, state: State | None = None) -> Float[Tensor, "B T D"]:
        """Returns the transformed stream."""
        return self.down(self.act(self.up(x)))


class ChunkedMLP(MLP):
    """An MLP that reads so many tokens at a time, so that what is between its maps is never there for the whole text.

    In training every chunk is computed once more in the backward, which keeps its input alone.
    Source: Kitaev et al. 2020 (Reformer, arXiv:2001.04451), section 3.

    Attributes:
        tokens: how many at a time.
    """

    tokens: Size

    def build(self, width: int) -> ChunkedMLPMixer:
        """Returns the module for a stream of ``width``."""
        return ChunkedMLPMixer(self, width)


class ChunkedMLPMixer(MLPMixer):
    """The module of `ChunkedMLP`."""

    def __init__(self, spec: ChunkedMLP, width: int) -> None:
        super().__init__(spec, width)
        self.tokens = spec.tokens

    def forward(self, x: Float[Tensor, "B T D"], ctx: Context, state: State | None = None) -> Float[Tensor, "B T D"]:
        """Returns the transformed stream."""
        run = super().forward
        if torch.is_grad_enabled():
            return torch.cat([checkpoint(run, part, ctx, use_reentrant=False) for part in x.split(self.tokens, 1)], 1)
        return torch.cat([run(part, ctx) for part in x.split(self.tokens, 1)], 1)


class GatedMLP(MixerSpec):
    """Two linear maps, the first gated by a third: SwiGLU with ``act="silu"``.

    Attributes:
        hidden: the width between them.
        act: the activation of the gate, a key of `groundup.parts.act.ACTIVATIONS`.
        bias: whether all three maps have a bias.
    """

    hidden: Size
    act: Act = "silu"
    bias: bool = False

    def build(self, width: int) -> GatedMLPMixer:
        """Returns the module for a stream of ``width``."""
        return GatedMLPMixer(self, width)


class GatedMLPMixer(Mixer):
    """The module of `GatedMLP`."""

    def __init__(self, spec: GatedMLP, width: int) -> None:
        super().__init__()
        self.gate = Linear(width, spec.hidden, bias=spec.bias, role="in")
        self.up = Linear(width, spec.hidden, bias=spec.bias, role="in")
        self.down = Linear(spec.hidden, width, bias=spec.bias, role="out")
        self.act = activation(spec.act)

    def forward(self, x: Float[Tensor, "B T D"], ctx: Context, state: State | None = None) -> Float[Tensor, "B T D"]:
        """Returns the transformed stream."""
        return self.down(self.act(self.gate(x)) * self.up(x))


class WeighedMLP(GatedMLP):
    """A gated network whose output is multiplied by a number between 0 and 1 that the token chooses."""

    def build(self, width: int) -> WeighedMLPMixer:
        """Returns the module for a stream of ``width``."""
        return WeighedMLPMixer(self, width)


class WeighedMLPMixer(GatedMLPMixer):
    """The module of `WeighedMLP`."""

    def __init__(self, spec: WeighedMLP, width: int) -> None:
        super().__init__(spec, width)
        self.weigh = Linear(width, 1, bias=False, role="in")

    def forward(self, x: Float[Tensor, "B T D"], ctx: Context, state: State | None = None) -> Float[Tensor, "B T D"]:
        """Returns the transformed stream."""
        return self.weigh(x).sigmoid() * super().forward(x, ctx, state)
