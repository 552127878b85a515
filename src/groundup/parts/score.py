"""How queries score keys before the softmax of attention, and what the softmax is over.

    Scaled:    a q.k
    Capped:    c tanh(a q.k / c)
    Sink:      a q.k, and one learnt score of each head that takes part in the softmax and gives nothing
    LeakySum:  LeakyReLU(u.q + w.k), with u and w learnt by each head

Sources: Vaswani et al. 2017 (arXiv:1706.03762), section 3.2.1; Gemma Team 2024 (Gemma 2, arXiv:2408.00118), section
2; OpenAI 2025 (gpt-oss, arXiv:2508.10925), section 2.1; Velickovic et al. 2017 (graph attention, arXiv:1710.10903),
equation 3.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.errors import SpecError
from groundup.ops import attention
from groundup.specs import NotNegative, Positive, Spec


class Score(Spec, abstract=True):
    """How queries score keys.

    Attributes:
        scale: what products of queries and keys are multiplied by; None means the head width to the power -1/2.
    """

    scale: Positive | None = None

    def build(self, heads: int, head_width: int) -> ScoreModule:
        """Returns the module for so many heads of this width."""
        raise NotImplementedError(type(self).__name__)


class ScoreModule(nn.Module):
    """Attention over given queries, keys and values.

    Attributes:
        sinks: how many keys the softmax has besides those that are given.
        products: how many products of matrices there are: scores and weighted sums.
    """

    sinks, products = 0, 2

    def __init__(self, spec: Score, head_width: int, *, cap: float = math.inf) -> None:
        super().__init__()
        self.scale = head_width**-0.5 if spec.scale is None else spec.scale
        self.cap = cap

    def forward(
        self,
        q: Float[Tensor, "B H T K"],
        k: Float[Tensor, "B G S K"],
        v: Float[Tensor, "B G S L"],
        *,
        allowed: Bool[Tensor, "#B 1 T S"] | None,
        causal: bool,
        bias: Float[Tensor, "#B #H #T S"] | None,
        dropout: float,
    ) -> Float[Tensor, "B H T L"]:
        """Returns the attention of every query; the arguments are those of `groundup.ops.attention.reference`."""
        mask = {"allowed": allowed, "causal": causal, "bias": bias}
        return attention.attend(q, k, v, scale=self.scale, cap=self.cap, dropout=dropout, **mask)


class Scaled(Score):
    """Products of queries and keys, scaled."""

    def build(self, heads: int, head_width: int) -> ScoreModule:
        """Returns the module for so many heads of this width."""
        return ScoreModule(self, head_width)


class Capped(Score):
    """Scaled products, bent so that none is beyond ``cap``."""

    cap: Positive

    def build(self, heads: int, head_width: int) -> ScoreModule:
        """Returns the module for so many heads of this width."""
        return ScoreModule(self, head_width, cap=self.cap)


class Sink(Score):
    """Scaled products beside a learnt score of each head that gives nothing."""

    def build(self, heads: int, head_width: int) -> SinkModule:
        """Returns the module for so many heads of this width."""
        return SinkModule(self, heads, head_width)


class SinkModule(ScoreModule):
    """The module of `Sink`."""

    sinks = 1

    def __init__(self, spec: Sink, heads: int, head_width: int) -> None:
        super().__init__(spec, head_width)
        self.score = nn.Parameter(torch.zeros(heads))

    def forward(
        self,
        q: Float[Tensor, "B H T K"],
        k: Float[Tensor, "B G S K"],
        v: Float[Tensor, "B G S L"],
        *,
        allowed: Bool[Tensor, "#B 1 T S"] | None,
        causal: bool,
        bias: Float[Tensor, "#B #H #T S"] | None,
        dropout: float,
    ) -> Float[Tensor, "B H T L"]:
        """Returns the attention of every query."""
        bias = attention.as_bias(allowed, bias, causal=causal, like=q, keys=k.shape[2])
        bias = bias.expand(-1, q.shape[1], q.shape[2], -1)
        sink = self.score.to(bias.dtype)[:, None, None].expand(*bias.shape[:3], 1)
        k, v = (torch.cat([t, torch.zeros_like(t[:, :, :1])], 2) for t in (k, v))
        every = torch.cat([bias, sink], -1)
        return attention.attend(q, k, v, allowed=None, causal=False, bias=every, scale=self.scale, dropout=dropout)


class LeakySum(Score):
    """What queries and keys say of themselves, added up: graph attention, with `groundup.parts.mask.Graph`.

    Attributes:
        slope: of sums below zero.
    """

    slope: NotNegative = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale is not None:
            raise SpecError(f"scale={self.scale} is of products, and LeakySum has none; drop it")

    def build(self, heads: int, head_width: int) -> LeakySumModule:
        """Returns the module for so many heads of this width."""
        return LeakySumModule(self, heads, head_width)


class LeakySumModule(ScoreModule):
    """The module of `LeakySum`."""

    products = 1

    def __init__(self, spec: LeakySum, heads: int, head_width: int) -> None:
        super().__init__(spec, head_width)
        self.slope = spec.slope
        self.of_query = nn.Parameter(torch.empty(heads, head_width))
        self.of_key = nn.Parameter(torch.empty(heads, head_width))

    def draw(self, generator: torch.Generator) -> None:
        """Draws the first weights, so that a sum is about as large as a value of a query."""
        for weight in (self.of_query, self.of_key):
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5, generator=generator)

    def forward(
        self,
        q: Float[Tensor, "B H T K"],
        k: Float[Tensor, "B G S K"],
        v: Float[Tensor, "B G S L"],
        *,
        allowed: Bool[Tensor, "#B 1 T S"] | None,
        causal: bool,
        bias: Float[Tensor, "#B #H #T S"] | None,
        dropout: float,
    ) -> Float[Tensor, "B H T L"]:
        """Returns the attention of every query."""
        k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], 1) for t in (k, v))
        wide = torch.promote_types(q.dtype, torch.float32)
        asked, told = ((x.to(wide) * a[:, None]).sum(-1) for x, a in ((q, self.of_query), (k, self.of_key)))
        score = F.leaky_relu(asked[..., None] + told[..., None, :], self.slope)
        hidden = attention.as_bias(allowed, bias, causal=causal, like=score, keys=k.shape[2])
        weight = (score + hidden.clamp(min=torch.finfo(wide).min / 2)).softmax(-1)  # finite where nothing is seen
        return F.dropout(weight, dropout).to(v.dtype) @ v
