"""A mixture of experts: feed-forward networks side by side, of which each token goes through a few.

    y = sum_{e in T(x)} g_e(x) W_down^e meet(W_gate^e x, W_up^e x) + shared(x)

The gating says how the two maps meet, usually as act(gate) up; all maps may have biases. The router chooses T and g.
Tokens are sorted by expert, so each expert is one product of matrices on its own tokens. Sources: Shazeer et al. 2017
(arXiv:1701.06538), equation 1; Jiang et al. 2024 (Mixtral, arXiv:2401.04088), section 2.1; shared experts, Dai et al.
2024 (DeepSeekMoE, arXiv:2401.06066), equation 9. Letters: N tokens, A active experts, R = N A rows.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.context import Context
from groundup.mixers.base import Mixer, MixerSpec
from groundup.mixers.mlp import GatedMLP
from groundup.parts.act import Act, activation
from groundup.parts.gating import Gating, Product
from groundup.parts.linear import ExpertLinear
from groundup.parts.router import Router, SoftmaxOfTop
from groundup.specs import Size
from groundup.state import State


class MoE(MixerSpec):
    """Feed-forward networks of which each token goes through a few.

    Attributes:
        experts: how many there are.
        active: through how many of them a token goes.
        hidden: the width inside each.
        act: the activation inside, a key of `groundup.parts.act.ACTIVATIONS`.
        gating: how gates and values meet.
        bias: whether the maps of the experts have biases.
        router: which token goes where.
        shared: a network that all tokens go through besides; None: there is none.
    """

    experts: Size
    active: Size
    hidden: Size
    act: Act = "silu"
    gating: Gating = Product()
    bias: bool = False
    router: Router = SoftmaxOfTop()
    shared: GatedMLP | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.router.check(self.experts, self.active)

    @property
    def alone(self) -> bool:
        """False: its router adds to the loss."""
        return False

    def build(self, width: int) -> MoEMixer:
        """Returns the module for a stream of ``width``."""
        return MoEMixer(self, width)


class MoEMixer(Mixer):
    """The module of `MoE`."""

    def __init__(self, spec: MoE, width: int) -> None:
        super().__init__()
        self.router = spec.router.build(width, spec.experts, spec.active)
        self.experts = Experts(spec, width)
        self.shared = spec.shared.build(width) if spec.shared else None

    def forward(self, x: Float[Tensor, "B T D"], ctx: Context, state: State | None = None) -> Float[Tensor, "B T D"]:
        """Returns the transformed stream."""
        tokens = x.flatten(0, 1)
        chosen, weights = self.router(tokens, ctx, state)  # (N, A)
        expert, order = chosen.flatten().sort(stable=True)  # (R,)
        made = self.experts(tokens.index_select(0, order // chosen.shape[1]), expert)  # (R, D)
        back = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=x.device))
        by_token = made.index_select(0, back).view(*chosen.shape, -1)  # (N, A, D)
        y = (by_token * weights[..., None].to(made.dtype)).sum(1).view_as(x)
        return y if self.shared is None else y + self.shared(x, ctx)

    def new_state(
        self, rows: int, max_len: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """Returns what the router remembers of ``rows`` rows that have read nothing."""
        return self.router.new_state(rows, device=device)


class Experts(nn.ModuleDict):
    """The experts of `MoE`, each a feed-forward network, as stacks of their maps by name."""

    def __init__(self, spec: MoE, width: int) -> None:
        sizes = {"experts": spec.experts, "active": spec.active, "bias": spec.bias}
        into = {name: ExpertLinear(width, spec.hidden, role="in", **sizes) for name in spec.gating.maps}
        super().__init__({**into, "down": ExpertLinear(spec.hidden, width, role="out", **sizes)})
        self.spec, self.act = spec, activation(spec.act)

    def forward(self, rows: Float[Tensor, "R D"], expert: Int[Tensor, "R"]) -> Float[Tensor, "R D"]:
        """Returns what each row's expert makes of it; rows are sorted by expert."""
        every = torch.arange(self.spec.experts, device=rows.device)
        ends = torch.searchsorted(expert, every, right=True, out_int32=True)  # (E,)
        into = (self[name](rows, expert, ends) for name in self.spec.gating.maps)
        return self["down"](self.spec.gating.meet(self.act, *into), expert, ends)
