"""A short causal convolution of each channel by itself.

    y_t = b + sum_j w_j x_{t-W+1+j},   j = 0 .. W-1, over the tokens of t's own document

Source: Fu et al. 2022 (H3, arXiv:2212.14052), section 3; Gu and Dao 2023 (Mamba, arXiv:2312.00752), section 3.4.
Letters: C channels, W taps, J = W - 1 the tokens before these that are read.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from groundup.autograd import once


def reference(
    x: Float[Tensor, "B T C"],
    weight: Float[Tensor, "C W"],
    bias: Float[Tensor, "C"] | None = None,
    *,
    before: Float[Tensor, "B J C"] | None = None,
    starts: Bool[Tensor, "B T"] | None = None,
) -> Float[Tensor, "B T C"]:
    """Returns the convolution, token by token: the definition.

    Args:
        x: the tokens.
        weight: the taps of each channel; the last is the token's own.
        bias: what is added.
        before: the tokens before these; None means that there are none, which are zeros.
        starts: where a document begins that sees nothing before it; None means nowhere.
    """
    rows, tokens, channels = x.shape
    window = x.new_zeros(rows, weight.shape[1] - 1, channels) if before is None else before
    outputs = []
    for t in range(tokens):
        if starts is not None:
            window = window.masked_fill(starts[:, t, None, None], 0.0)
        window = torch.cat([window, x[:, t : t + 1]], 1)  # (B, W, C)
        outputs.append((window * weight.mT).sum(1))
        window = window[:, 1:]
    y = torch.stack(outputs, 1)
    return y if bias is None else y + bias


def causal_conv(
    x: Float[Tensor, "B T C"],
    weight: Float[Tensor, "C W"],
    bias: Float[Tensor, "C"] | None = None,
    *,
    before: Float[Tensor, "B J C"] | None = None,
    starts: Bool[Tensor, "B T"] | None = None,
) -> Float[Tensor, "B T C"]:
    """Returns what `reference` does, a tap at a time over all tokens, with sums in float32 or wider."""
    wide = torch.promote_types(x.dtype, torch.float32)
    past = weight.shape[1] - 1
    padded = F.pad(x, (0, 0, past, 0)) if before is None else torch.cat([before.to(x.dtype), x], 1)
    document = None if starts is None else F.pad(starts.cumsum(1), (past, 0))
    weight, bias = weight.to(wide), x.new_zeros((), dtype=wide) if bias is None else bias.to(wide)
    return _Taps.apply(padded, weight, bias, document).to(x.dtype)


class _Taps(torch.autograd.Function):
    """The sum over taps; autograd by itself would keep a product for each."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, weight: Tensor, bias: Tensor, document: Tensor | None) -> Tensor:
        ctx.save_for_backward(padded, weight, bias, document)
        tokens = padded.shape[1] - weight.shape[1] + 1
        y = bias.expand(padded.shape[0], tokens, weight.shape[0]).clone()
        for tap, column in enumerate(weight.unbind(1)):
            y.addcmul_(_seen(padded, tap, tokens, document), column)
        return y

    @staticmethod
    @once
    def backward(  # pyrefly: ignore[bad-override]: the decorator hides the names
        ctx: Any, *grad_outputs: Any
    ) -> Any:
        (grad,), (padded, weight, bias, document) = grad_outputs, ctx.saved_tensors
        tokens, sums = grad.shape[1], []
        grad_padded = torch.zeros_like(padded, dtype=grad.dtype)
        for tap, column in enumerate(weight.unbind(1)):
            sums.append((grad * _seen(padded, tap, tokens, document)).sum((0, 1)))
            reached = _hidden(grad, tap, tokens, document)
            grad_padded[:, tap : tap + tokens].addcmul_(reached, column)
        return grad_padded.to(padded.dtype), torch.stack(sums, 1), grad.sum((0, 1)).sum_to_size(bias.shape), None


def _seen(padded: Tensor, tap: int, tokens: int, document: Tensor | None) -> Tensor:
    """Returns the tokens that are read by one tap; zeros where they are of another document."""
    return _hidden(padded[:, tap : tap + tokens], tap, tokens, document)


def _hidden(x: Tensor, tap: int, tokens: int, document: Tensor | None) -> Tensor:
    """Returns ``x`` (B, T, C), zero where what the tap reads is not of the token's own document."""
    if document is None:
        return x
    return x * (document[:, tap : tap + tokens] == document[:, -tokens:])[:, :, None]
