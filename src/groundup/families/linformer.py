"""Linformer: BERT's layers with attention to a fixed number of sums of keys and values.

Source: Wang et al. 2020 (arXiv:2006.04768), section 5, which gives RoBERTa's base size (Liu et al. 2019,
arXiv:1907.11692) texts of 512 tokens and ranks of 128 and 256; of its ways of sharing sums, that by heads.
"""

from __future__ import annotations

from functools import partial

from groundup.families import bert
from groundup.families.family import Family, head_width
from groundup.mixers.low_rank_attention import LowRankAttention
from groundup.model.encoder import Encoder
from groundup.model.pool import NoPool
from groundup.parts.position import Learned


def linformer(*, width: int, layers: int, heads: int, rank: int, context: int = 512, vocab: int = 50265) -> Encoder:
    """Returns the spec of a Linformer of these sizes.

    Args:
        width: the width of the residual stream.
        layers: the number of layers.
        heads: attention heads, each ``width / heads`` wide.
        rank: how many sums of keys and values there are.
        context: the tokens of the longest text.
        vocab: the number of token ids.

    Raises:
        SpecError: ``heads`` does not divide ``width``, or ``rank`` is above ``context``.
    """
    attention = LowRankAttention(
        heads=heads, head_width=head_width(width, heads), rank=rank, length=context, bias=True, out_bias=True
    )
    return bert.post_norm(
        [attention] * layers,
        width=width,
        hidden=4 * width,
        vocab=vocab,
        position=Learned(context),
        types=1,
        act="gelu",
        eps=1e-5,
        filling=True,
        pool=NoPool(),
        deviation=0.02,
        dropout=0.0,
    )


base = partial(linformer, width=768, layers=12, heads=12)
PRESETS = {"linformer-base-k128": partial(base, rank=128), "linformer-base-k256": partial(base, rank=256)}

FAMILY = Family(name="linformer", presets=PRESETS, kind=Encoder)
