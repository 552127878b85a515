"""Token shift: what a part reads at a token is a mix of that token and the one before it, channel by channel.

Source: Peng et al. 2023 (RWKV, arXiv:2305.13048), section 3.1.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.context import Context
from groundup.ops import token_shift
from groundup.parts.conv import ConvState


def mixes(
    x: Float[Tensor, "B T D"], ctx: Context, weights: Sequence[Float[Tensor, "D"]], state: ConvState | None = None
) -> tuple[Float[Tensor, "B T D"], ...]:
    """Returns a mix for each of the weights, which say what of it is the token before.

    Before a document's first token there are zeros. A state is continued, in place.
    """
    before = x.new_zeros(x.shape[0], 1, x.shape[2]) if state is None else state.push(x, ctx).to(x.dtype)
    return token_shift.mixed(x, before, torch.stack(list(weights)).to(x.dtype), starts=ctx.starts)


def new_shift(
    rows: int, width: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> ConvState:
    """Returns the state of ``rows`` rows that have read nothing."""
    return ConvState(tail=torch.zeros(rows, 1, width, device=device, dtype=dtype))
