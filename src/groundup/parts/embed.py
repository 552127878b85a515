"""What enters a stack of layers: vectors of the tokens, scaled, placed and normed.

    x = dropout(norm(position(D^p * table[ids] + type)))

Sources: the root of the width, p = 1/2, Vaswani et al. 2017 (arXiv:1706.03762), section 3.4; the norm, Le Scao et al.
2022 (BLOOM, arXiv:2211.05100), section 3.2.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from groundup.context import Context
from groundup.parts.linear import Embedding, Linear, dropout
from groundup.parts.norm import NoNorm, Norm
from groundup.parts.position import NoPosition, Position
from groundup.specs import Count, ShareBelowOne, Size, Spec


class Embed(Spec):
    """How token ids become vectors.

    Attributes:
        width_power: the table's vectors are multiplied by the width to this power.
        position: what is added to them; rotary positions belong to the attention instead.
        types: how many token types have a learnt vector that is added too (2 in BERT: the first and the second text of
            a pair); 0 leaves them out.
        norm: the norm of the sum.
        dropout: the chance of each value to be dropped in training.
    """

    width_power: float = 0.0
    position: Position = NoPosition()
    types: Count = 0
    norm: Norm = NoNorm()
    dropout: ShareBelowOne = 0.0

    def vector_width(self, width: int) -> int:
        """Returns the width of the table's vectors, for a stream of ``width``."""
        return width

    def build(self, vocab: int, width: int) -> TokenTable:
        """Returns the module for ``vocab`` ids and a stream of ``width``."""
        return TokenTable(self, vocab, width, table_width=width)


class TokenTable(Embedding):
    """The module of `Embed`: a table of vectors (V, D), its own or another's, and what is done to them."""

    def __init__(self, spec: Embed, vocab: int, width: int, *, table_width: int) -> None:
        super().__init__(vocab, table_width)
        self._lender: tuple[TokenTable, ...] = ()
        self.scale = width**spec.width_power
        self.position = spec.position.build(width)
        self.types = Embedding(spec.types, width) if spec.types else None
        self.norm = spec.norm.build(width)
        self.dropout = dropout(spec.dropout)

    def borrow(self, lender: TokenTable) -> None:
        """Drops the table and reads another module's from now on."""
        self._lender = (lender,)  # in a tuple, so that the lender stays the only owner of its weights
        self.register_parameter("weight", None)

    @property
    def table(self) -> Tensor:
        """The vectors of all tokens, (V, D)."""
        return self._lender[0].weight if self._lender else self.weight

    def forward(  # pyrefly: ignore[bad-override]: places are needed too
        self, ids: Int[Tensor, "B T"], ctx: Context
    ) -> Float[Tensor, "B T D"]:
        """Returns the vectors of tokens at their places."""
        x = self.vectors(ids)
        if self.scale != 1.0:
            x = x * self.scale
        if self.types is not None:
            x = x + self.types(torch.zeros_like(ids) if ctx.types is None else ctx.types)
        return self.dropout(self.norm(self.position(x, ctx)))

    def vectors(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Returns the vectors of tokens, as wide as the stream."""
        return F.embedding(ids, self.table)


class NarrowEmbed(Embed):
    """An embedding whose table is narrower than the stream, with a linear map without bias between the two.

    Source: Zhang et al. 2022 (OPT, arXiv:2205.01068), the 350M model; the idea is that of Lan et al. 2020 (ALBERT,
    arXiv:1909.11942), section 3.1.

    Attributes:
        table_width: the width of the table's vectors.
    """

    table_width: Size

    def vector_width(self, width: int) -> int:
        """Returns the width of the table's vectors."""
        return self.table_width

    def build(self, vocab: int, width: int) -> NarrowTable:
        """Returns the module for ``vocab`` ids and a stream of ``width``."""
        return NarrowTable(self, vocab, width)


class NarrowTable(TokenTable):
    """The module of `NarrowEmbed`."""

    def __init__(self, spec: NarrowEmbed, vocab: int, width: int) -> None:
        super().__init__(spec, vocab, width, table_width=spec.table_width)
        self.widen = Linear(spec.table_width, width, bias=False, role="in")

    def vectors(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Returns the vectors of tokens, made as wide as the stream."""
        return self.widen(super().vectors(ids))
