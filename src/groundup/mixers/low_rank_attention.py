"""Attention to a fixed number of sums of the keys and values of a text, however long it is.

    y_t = softmax(q_t (E k)^T / sqrt(K)) (F v)      E, F: ``rank`` x ``length``, learnt; T columns of them for T tokens

Every token sees sums of all tokens, so this is for encoders, and for texts of up to ``length`` tokens. All heads share
E and F (the first way of sharing in section 4). Every document is projected by itself, whatever it is packed with.
Source: Wang et al. 2020 (Linformer, arXiv:2006.04768), section 4. Letters: R the rank.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from groundup.context import Context
from groundup.errors import GenerationError, SpecError
from groundup.mixers import documents
from groundup.mixers.base import MixerSpec
from groundup.mixers.heads import HeadsMixer
from groundup.ops import attention
from groundup.parts.linear import Linear
from groundup.specs import ShareBelowOne, Size


class LowRankAttention(MixerSpec):
    """Attention to sums of keys and values along the text.

    Attributes:
        heads: the number of heads.
        head_width: the width of one head.
        rank: how many sums there are.
        length: the tokens of the longest text.
        bias: whether queries, keys and values have a bias.
        out_bias: whether the output has a bias.
        dropout: the chance of each attention weight to be dropped in training.
    """

    heads: Size
    head_width: Size
    rank: Size
    length: Size
    bias: bool = False
    out_bias: bool = False
    dropout: ShareBelowOne = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank > self.length:
            raise SpecError(
                f"rank={self.rank} is above length={self.length}, which saves nothing; choose a smaller one"
            )

    @property
    def causal(self) -> bool:
        """False: sums are of all tokens."""
        return False

    @property
    def longest(self) -> int:
        """The most tokens that it can read: as many as are summed over."""
        return self.length

    def build(self, width: int) -> LowRankMixer:
        """Returns the module for a stream of ``width``."""
        return LowRankMixer(self, width)


class LowRankMixer(HeadsMixer):
    """The module of `LowRankAttention`."""

    def __init__(self, spec: LowRankAttention, width: int) -> None:
        super().__init__(width, heads=spec.heads, head_width=spec.head_width, bias=spec.bias, dropout=spec.dropout)
        self.spec = spec
        self.out = Linear(self.inside, width, bias=spec.out_bias, role="out")
        self.sums_k = nn.Parameter(torch.empty(spec.rank, spec.length))
        self.sums_v = nn.Parameter(torch.empty(spec.rank, spec.length))

    def draw(self, generator: torch.Generator) -> None:
        """Draws the first weights of the sums, of variance 1 / rank (section 3, theorem 2)."""
        for sums in (self.sums_k, self.sums_v):
            nn.init.normal_(sums, std=self.spec.rank**-0.5, generator=generator)

    def forward(  # pyrefly: ignore[bad-override]: it reads all at once and has no state
        self, x: Float[Tensor, "B T D"], ctx: Context, state: None = None
    ) -> Float[Tensor, "B T D"]:
        """Returns the attended stream.

        Raises:
            GenerationError: the text is longer than the sums were made for.
        """
        q, k, v = (self.heads(made, x) for made in (self.q, self.k, self.v))
        return self.out(documents.each(self._read, q, k, v, ctx=ctx).transpose(1, 2).flatten(2))

    def _read(
        self, q: Float[Tensor, "B H T K"], k: Float[Tensor, "B H T K"], v: Float[Tensor, "B H T K"]
    ) -> Float[Tensor, "B H T K"]:
        """Returns the attention of one document a row."""
        tokens = q.shape[2]
        if tokens > self.spec.length:
            raise GenerationError(
                f"the text is {tokens} tokens long and its keys are summed over {self.spec.length} places; shorten it"
            )
        k, v = (sums[:, :tokens].to(t.dtype) @ t for sums, t in ((self.sums_k, k), (self.sums_v, v)))  # (B, H, R, K)
        return attention.attend(q, k, v, allowed=None, causal=False, **self.how)

    def mix_flops(self, tokens: int, seen: int) -> int:
        """Returns the operations of the sums, and of attention to them."""
        return 2 * self.attend_flops(tokens, self.spec.rank)
