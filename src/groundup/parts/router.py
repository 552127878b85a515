"""Which experts a token goes to, and how much each of them counts.

    s = W x
    SoftmaxOfTop:    T = top_k(s);            g_T = softmax(s_T)
    TopOfSoftmax:    T = top_k(softmax(s)) within the best groups;       g_T = scale softmax(s)_T
    GroupedSigmoid:  T = top_k(sigmoid(s) + b) within the best groups;   g_T = scale sigmoid(s)_T / sum sigmoid(s)_T

A group is as good as its best expert, or as its two best with sigmoids; b moves the choice alone. Two losses keep
routers well:

    balance = E sum_i f_i P_i                 f the share of tokens that choose expert i, P its mean probability
    z       = mean_n logsumexp(s_n)^2

Sources: of the first, Shazeer et al. 2017 (arXiv:1701.06538), equations 3 to 5, and Jiang et al. 2024 (Mixtral,
arXiv:2401.04088), section 2.1; of the second, Fedus et al. 2021 (Switch, arXiv:2101.03961), equations 1 and 2, 4 to 6
for balance, sections 2.2 and 2.4 for capacity and jitter; of its groups, DeepSeek-AI 2024 (DeepSeek-V2,
arXiv:2405.04434), section 2.1.3; of the third, DeepSeek-AI 2024 (DeepSeek-V3, arXiv:2412.19437), section 2.1.2; of z,
Zoph et al. 2022 (ST-MoE, arXiv:2202.08906), equation 5. All is computed in float32, or wider where the weights are
(Switch, section 2.4). Left out: how b moves between steps (Wang et al. 2024, arXiv:2408.15664); it stays as it was
read. Letters: N tokens in B rows of T, D width, E experts, A active ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.context import Context
from groundup.errors import SpecError
from groundup.parts.linear import Linear
from groundup.specs import NotNegative, Positive, ShareBelowOne, Size, Spec
from groundup.state import State


class Router(Spec, abstract=True):
    """How experts are chosen.

    Attributes:
        balance: the weight of the balance loss in training.
        z: the weight of the z loss in training.
        bias: whether the map that scores has a bias.
        jitter: in training, what is scored is multiplied by numbers drawn from 1 - jitter to 1 + jitter.
        capacity: how many tokens of a document an expert takes, the first ones; to those that come later it gives
            nothing, so they go on as they are (they are computed all the same: this saves no operations). A state
            counts on, so that pieces give the whole, and rows do not share experts' room. None: no limit.
    """

    balance: NotNegative = 0.0
    z: NotNegative = 0.0
    bias: bool = False
    jitter: ShareBelowOne = 0.0
    capacity: Size | None = None

    def check(self, experts: int, active: int) -> None:
        """Refuses sizes that do not fit.

        Raises:
            SpecError: they do not.
        """
        if active > experts:
            raise SpecError(f"active={active} is more than experts={experts}; choose at most as many")

    def build(self, width: int, experts: int, active: int) -> RouterModule:
        """Returns the module that sends tokens of ``width`` to ``active`` of ``experts``."""
        raise NotImplementedError(type(self).__name__)


class RouterModule(nn.Module):
    """The module of `Router`."""

    def __init__(self, spec: Router, width: int, experts: int, active: int) -> None:
        super().__init__()
        self.experts, self.active = experts, active
        self.balance, self.z, self.jitter, self.capacity = spec.balance, spec.z, spec.jitter, spec.capacity
        self.score = Linear(width, experts, bias=spec.bias, role="in")

    def forward(
        self, x: Float[Tensor, "N D"], ctx: Context, state: State | None = None
    ) -> tuple[Int[Tensor, "N A"], Float[Tensor, "N A"]]:
        """Returns the experts of each token and what each of them counts; the context is told the losses."""
        wide = torch.promote_types(self.score.weight.dtype, torch.float32)
        x = x.to(wide)
        if self.training and self.jitter:
            x = x * torch.empty_like(x).uniform_(1 - self.jitter, 1 + self.jitter)
        with torch.autocast(x.device.type, enabled=False):
            bias = None if self.score.bias is None else self.score.bias.to(wide)
            scores = F.linear(x, self.score.weight.to(wide), bias)
        chosen, weights = self.choose(scores)
        if self.balance:
            ctx.penalise("balance", lambda: self.balance * balance_loss(self.shares(scores), chosen))
        if self.z:
            ctx.penalise("z", lambda: self.z * z_loss(scores))
        if self.capacity is not None:
            of_rows = chosen.unflatten(0, ctx.positions.shape)
            assert state is None or isinstance(state, Load)
            before = tokens_before(of_rows, ctx, experts=self.experts, load=state)
            weights = weights * (before < self.capacity).flatten(0, 1)
        return chosen, weights

    def new_state(self, rows: int, *, device: torch.device | str | None = None) -> State:
        """Returns what is remembered of rows that have read nothing."""
        if self.capacity is None:
            return State()
        return Load(had=torch.zeros(rows, self.experts, dtype=torch.int64, device=device))

    def choose(self, scores: Float[Tensor, "N E"]) -> tuple[Int[Tensor, "N A"], Float[Tensor, "N A"]]:
        """Returns the experts of each token and what each of them counts."""
        raise NotImplementedError(type(self).__name__)

    def shares(self, scores: Float[Tensor, "N E"]) -> Float[Tensor, "N E"]:
        """Returns the probabilities of all experts."""
        return scores.softmax(-1)


@dataclass
class Load(State):
    """How many tokens of its row each expert has been chosen by."""

    had: Int[Tensor, "B E"]

    @property
    def rewinds(self) -> bool:
        """False: which expert a token chose is not kept."""
        return False


class SoftmaxOfTop(Router):
    """The experts of the highest scores, weighed by the softmax of these scores alone (Mixtral)."""

    def build(self, width: int, experts: int, active: int) -> SoftmaxOfTopModule:
        """Returns the module."""
        return SoftmaxOfTopModule(self, width, experts, active)


class SoftmaxOfTopModule(RouterModule):
    """The module of `SoftmaxOfTop`."""

    def choose(self, scores: Float[Tensor, "N E"]) -> tuple[Int[Tensor, "N A"], Float[Tensor, "N A"]]:
        """Returns the experts of each token and what each of them counts; the weights sum to one."""
        top, chosen = scores.topk(self.active, -1)
        return chosen, top.softmax(-1)


class Grouped(Router, abstract=True):
    """A choice among the experts of the best groups only, so that a token visits few machines.

    Attributes:
        groups: into how many groups of neighbours the experts are cut.
        kept: from how many of the groups a token takes its experts.
        scale: what the weights are multiplied by at last.
    """

    judges: ClassVar[int] = 1  # how many of its experts, the best ones, a group is as good as

    groups: Size = 1
    kept: Size = 1
    scale: Positive = 1.0

    def check(self, experts: int, active: int) -> None:
        """Refuses sizes that do not fit.

        Raises:
            SpecError: they do not.
        """
        super().check(experts, active)
        if experts % self.groups or experts // self.groups < self.judges or self.kept > self.groups:
            raise SpecError(
                f"experts={experts} are not groups={self.groups} of {self.judges} or more, of which kept={self.kept} "
                "are kept; change one of them"
            )
        if active > experts // self.groups * self.kept:
            raise SpecError(f"active={active} is more than the experts of kept={self.kept} groups; keep more groups")


class GroupedModule(RouterModule):
    """The module of `Grouped`."""

    def __init__(self, spec: Grouped, width: int, experts: int, active: int) -> None:
        super().__init__(spec, width, experts, active)
        self.groups, self.kept, self.scale, self.judges = spec.groups, spec.kept, spec.scale, spec.judges

    def best(self, merits: Float[Tensor, "N E"]) -> Int[Tensor, "N A"]:
        """Returns the experts of the highest merits within the best groups."""
        grouped = merits.detach().unflatten(-1, (self.groups, -1))  # (N, G, E/G)
        best = grouped.topk(self.judges, -1).values.sum(-1).topk(self.kept, -1).indices
        left_out = torch.ones_like(grouped[..., 0], dtype=torch.bool).scatter(-1, best, value=False)
        return grouped.masked_fill(left_out[..., None], -torch.inf).flatten(-2).topk(self.active, -1).indices


class TopOfSoftmax(Grouped):
    """The most probable experts, weighed by their probabilities among all.

    With one expert active it is Switch's router, with groups, each as good as its best expert, DeepSeek-V2's.
    """

    def build(self, width: int, experts: int, active: int) -> TopOfSoftmaxModule:
        """Returns the module."""
        return TopOfSoftmaxModule(self, width, experts, active)


class TopOfSoftmaxModule(GroupedModule):
    """The module of `TopOfSoftmax`."""

    def choose(self, scores: Float[Tensor, "N E"]) -> tuple[Int[Tensor, "N A"], Float[Tensor, "N A"]]:
        """Returns the experts of each token and what each of them counts."""
        shares = self.shares(scores)
        chosen = self.best(shares)
        return chosen, self.scale * shares.gather(-1, chosen)


class GroupedSigmoid(Grouped):
    """The experts of the highest moved sigmoids, weighed without the move by their shares of the scale (DeepSeek-V3).

    A group is as good as its two best experts together.
    """

    judges: ClassVar[int] = 2

    def build(self, width: int, experts: int, active: int) -> GroupedSigmoidModule:
        """Returns the module."""
        return GroupedSigmoidModule(self, width, experts, active)


class GroupedSigmoidModule(GroupedModule):
    """The module of `GroupedSigmoid`."""

    bias: Tensor

    def __init__(self, spec: GroupedSigmoid, width: int, experts: int, active: int) -> None:
        super().__init__(spec, width, experts, active)
        self.register_buffer("bias", torch.zeros(experts))

    def choose(self, scores: Float[Tensor, "N E"]) -> tuple[Int[Tensor, "N A"], Float[Tensor, "N A"]]:
        """Returns the experts of each token and what each of them counts; the weights sum to the scale."""
        open_ = scores.sigmoid()
        chosen = self.best(open_ + self.bias)
        weights = open_.gather(-1, chosen)
        return chosen, self.scale * weights / weights.sum(-1, keepdim=True)

    def shares(self, scores: Float[Tensor, "N E"]) -> Float[Tensor, "N E"]:
        """Returns the sigmoids of all experts, as shares of their sum."""
        open_ = scores.sigmoid()
        return open_ / open_.sum(-1, keepdim=True)


def tokens_before(
    chosen: Int[Tensor, "B T A"], ctx: Context, *, experts: int, load: Load | None
) -> Int[Tensor, "B T A"]:
    """Returns how many earlier tokens of the document chose the same expert, those of the load among them."""
    sent = F.one_hot(chosen, experts).sum(2)  # (B, T, E)
    if ctx.real is not None:
        sent = sent * ctx.real[..., None]
    before = sent.cumsum(1) - sent
    if ctx.starts is not None:
        place = torch.arange(chosen.shape[1], device=chosen.device)
        start = (place * ctx.starts).cummax(1).values  # of each token's document
        before = before - before.gather(1, start[..., None].expand_as(before))
    if load is not None:
        before = before + load.had[:, None]
        load.had.add_(sent.sum(1))
    return before.gather(2, chosen)


def balance_loss(shares: Float[Tensor, "N E"], chosen: Int[Tensor, "N A"]) -> Float[Tensor, ""]:
    """Returns how unevenly tokens are sent (Switch, equation 4, for any number of active experts).

    It is the number of active experts where all are chosen alike, and gradients flow through the shares alone.
    """
    tokens, experts = shares.shape
    ones = torch.ones_like(chosen, dtype=shares.dtype).flatten()
    sent = shares.new_zeros(experts).scatter_add(0, chosen.flatten(), ones) / tokens
    return experts * (sent * shares.mean(0)).sum()


def z_loss(scores: Float[Tensor, "N E"]) -> Float[Tensor, ""]:
    """Returns how far scores are from those that a softmax leaves as they are (ST-MoE, equation 5)."""
    return scores.logsumexp(-1).square().mean()
