"""Token shift: what a part reads at a token is a mix of that token and the one before it, channel by channel.

Source: Peng et al. 2023 (RWKV, arXiv:2305.13048), section 3.1.1.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.context import Context
from groundup.parts.conv import ConvState


def shifted(x: Float[Tensor, "B T D"], ctx: Context, state: ConvState | None = None) -> Float[Tensor, "B T D"]:
    """Returns the token before each token, zeros before a document's first; a state is continued, in place."""
    before = x.new_zeros(x.shape[0], 1, x.shape[2]) if state is None else state.push(x, ctx).to(x.dtype)
    past = torch.cat([before, x[:, :-1]], 1)
    return past if ctx.starts is None else past.masked_fill(ctx.starts[..., None], 0.0)


def new_shift(
    rows: int, width: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> ConvState:
    """Returns the state of ``rows`` rows that have read nothing."""
    return ConvState(tail=torch.zeros(rows, 1, width, device=device, dtype=dtype))
