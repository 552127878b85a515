"""Attention in blocks: to the neighbours of a block, to the first and the last block, and to some blocks at random.

    blocks 1 and N of queries read all keys; block n reads the blocks 1, n-1, n, n+1, N, each once, and ``count``
    further ones, whose keys count once more where they are among the others

A text of at most 5 + 2 count blocks is read whole, by ordinary attention. The further blocks are a value of the spec,
and so is the seed that they are drawn from. Every document is read by itself, whatever it is packed or padded with.
Source: Zaheer et al. 2020 (BigBird, arXiv:2007.14062), section 2 and appendix D.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from groundup.context import Context
from groundup.errors import SpecError
from groundup.mixers import documents
from groundup.mixers.base import MixerSpec
from groundup.mixers.heads import HeadsMixer
from groundup.ops import attention, block_attention
from groundup.parts.linear import Linear
from groundup.specs import Count, Seed, ShareBelowOne, Size, Spec

Plan = tuple[tuple[tuple[int, ...], ...], ...]  # of each head and each block but the first and the last

DRAWN_FOR_THE_LONGEST = (1024, 3072, 4096)  # texts of these lengths share the plan of the longest, up to token 1024


class Further(Spec, abstract=True):
    """Which blocks a block of queries reads besides its neighbours, the first and the last.

    Attributes:
        count: how many.
    """

    count: Count = 3

    def plan(self, blocks: int, *, heads: int, block: int, longest: int) -> Plan:
        """Returns the further blocks of every head and every block but the first and the last.

        Args:
            blocks: N.
            heads: H.
            block: the tokens of a block.
            longest: the tokens of the longest text.
        """
        raise NotImplementedError(type(self).__name__)


class DrawnBlocks(Further):
    """Blocks at random, other ones for each head and block: those that transformers draws in training.

    The draws are numpy's legacy ones, whose stream does not change between versions. transformers draws none in
    evaluation (5.23), and reads the first block in their place: that is `FirstBlock`.

    Attributes:
        seed: of the draw; transformers seeds each layer by its number.
    """

    seed: Seed = 0

    def plan(self, blocks: int, *, heads: int, block: int, longest: int) -> Plan:
        """Returns the drawn blocks."""
        draw = np.random.RandomState(self.seed)
        if blocks * block in DRAWN_FOR_THE_LONGEST:
            every = [self._up_to(draw, longest // block, 1024 // block) for _ in range(heads)]
            return tuple(tuple(rows[: blocks - 2]) for rows in every)
        rows = [[self._legal(draw, n) for _ in range(heads)] for n in range(1, blocks - 1)]
        return tuple(zip(*rows, strict=True))

    def _legal(self, draw: np.random.RandomState, n: int) -> tuple[int, ...]:
        """Returns blocks among the first 2 count + 5 that block n does not read already."""
        end = 2 * self.count + 5
        read = {0, n - 1, n, n + 1, end - 1} | ({end - 2} if n == 1 else set()) | ({1} if n == end - 2 else set())
        return tuple(int(b) for b in draw.permutation(np.arange(end, dtype=np.int32)) if b not in read)[: self.count]

    def _up_to(self, draw: np.random.RandomState, blocks: int, end: int) -> list[tuple[int, ...]]:
        """Returns blocks before the last of the first ``end`` for all blocks but the first and the last."""
        inner, last = np.arange(1, blocks - 1, dtype=np.int32), end - 1 if end > 2 else blocks - 1
        return [self._filled(draw.permutation(_choice(inner, n, blocks, last))) for n in range(1, blocks - 1)]

    def _filled(self, drawn: np.ndarray) -> tuple[int, ...]:
        """Returns the first ``count``; -1, which is no block, for those that are not there."""
        return tuple(int(b) for b in (*drawn[: self.count], *[-1] * (self.count - len(drawn))))


class FirstBlock(Further):
    """The first block once more, ``count`` times: what transformers reads in evaluation (5.23)."""

    def plan(self, blocks: int, *, heads: int, block: int, longest: int) -> Plan:
        """Returns the first block everywhere."""
        return (((0,) * self.count,) * (blocks - 2),) * heads


def _choice(inner: np.ndarray, n: int, blocks: int, last: int) -> np.ndarray:
    """Returns the blocks that block n draws from."""
    if n <= 2:
        return inner[n + 1 : last]
    if n >= blocks - 3:
        return inner[:last]
    if n - 2 > last or n + 1 == last:
        return inner[: min(n - 2, last)]
    return np.concatenate([inner[: n - 2], inner[n + 1 : last]])


class BlockSparseAttention(MixerSpec):
    """Attention to neighbouring blocks, the first, the last and some further ones.

    Attributes:
        heads: the number of heads.
        head_width: the width of one head.
        block: the tokens of a block.
        length: the tokens of the longest text.
        further: which blocks are read besides.
        bias: whether queries, keys and values have a bias.
        out_bias: whether the output has a bias.
        dropout: the chance of each attention weight to be dropped in training.
    """

    heads: Size
    head_width: Size
    block: Size
    length: Size
    further: Further = DrawnBlocks()
    bias: bool = False
    out_bias: bool = False
    dropout: ShareBelowOne = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length % self.block:
            raise SpecError(f"length={self.length} is not a multiple of block={self.block}; change one of them")

    @property
    def causal(self) -> bool:
        """False: tokens see what comes after them."""
        return False

    @property
    def longest(self) -> int:
        """The most tokens that it can read: as many as further blocks are drawn for."""
        return self.length

    @property
    def whole(self) -> int:
        """The tokens up to which a text is read whole."""
        return (5 + 2 * self.further.count) * self.block

    def build(self, width: int) -> BlockSparseMixer:
        """Returns the module for a stream of ``width``."""
        return BlockSparseMixer(self, width)


class BlockSparseMixer(HeadsMixer):
    """The module of `BlockSparseAttention`."""

    def __init__(self, spec: BlockSparseAttention, width: int) -> None:
        super().__init__(width, heads=spec.heads, head_width=spec.head_width, bias=spec.bias, dropout=spec.dropout)
        self.spec = spec
        self.out = Linear(self.inside, width, bias=spec.out_bias, role="out")

    def forward(  # pyrefly: ignore[bad-override]: it reads all at once and has no state
        self, x: Float[Tensor, "B T D"], ctx: Context, state: None = None
    ) -> Float[Tensor, "B T D"]:
        """Returns the attended stream."""
        q, k, v = (self.heads(made, x) for made in (self.q, self.k, self.v))
        return self.out(documents.each(self._read, q, k, v, ctx=ctx).transpose(1, 2).flatten(2))

    def _read(
        self, q: Float[Tensor, "B H T K"], k: Float[Tensor, "B H T K"], v: Float[Tensor, "B H T K"]
    ) -> Float[Tensor, "B H T K"]:
        """Returns the attention of one document a row."""
        tokens, size = q.shape[2], self.spec.block
        if tokens <= self.spec.whole:
            return attention.attend(q, k, v, allowed=None, causal=False, **self.how)
        q, k, v = (F.pad(t, (0, 0, 0, -tokens % size)) for t in (q, k, v))
        plan = torch.tensor(_blocks_read(self.spec, q.shape[2] // size), device=q.device)  # (H, N - 2, J)
        place = block_attention.places(plan, size=size, keys=k.shape[2])
        real = torch.arange(k.shape[2], device=q.device) < tokens
        inner = block_attention.attend(
            q[:, :, size:-size],
            k,
            v,
            plan=plan,
            allowed=((place >= 0) & (place < tokens))[None, :, :, None].expand(-1, -1, -1, size, -1),
            **self.how,
        )
        ends = torch.cat([q[:, :, :size], q[:, :, -size:]], 2)
        ends = attention.attend(ends, k, v, allowed=real.expand(len(q), 1, 2 * size, -1), causal=False, **self.how)
        return torch.cat([ends[:, :, :size], inner, ends[:, :, size:]], 2)[:, :, :tokens]

    def mix_flops(self, tokens: int, seen: int) -> int:
        """Returns the operations of the blocks that are read, or of all where the text is read whole."""
        spec, size = self.spec, self.spec.block
        if tokens <= spec.whole:
            return self.attend_flops(tokens, tokens)
        blocks = -(-tokens // size)
        inner = self.attend_flops((blocks - 2) * size, (5 + spec.further.count) * size)
        return inner + self.attend_flops(2 * size, blocks * size)


@torch.compiler.assume_constant_result
def _blocks_read(spec: BlockSparseAttention, blocks: int) -> Plan:
    """Returns what `blocks_read` does: a compiler need not look into numpy's draws, nor into a cache."""
    return blocks_read(spec, blocks)


@lru_cache(maxsize=256)
def blocks_read(spec: BlockSparseAttention, blocks: int) -> Plan:
    """Returns which of ``blocks`` blocks each head and each block but the first and the last reads."""
    further = spec.further.plan(blocks, heads=spec.heads, block=spec.block, longest=spec.length)
    return tuple(
        tuple(
            (0, n - 1 if n > 1 else -1, n, n + 1 if n < blocks - 2 else -1, blocks - 1, *rows[n - 1])
            for n in range(1, blocks - 1)
        )
        for rows in further
    )
