"""The cost of the right next token, without ever holding all logits.

    loss = sum_n s_n [ logsumexp_v(z_nv) - z_{n t_n} ],   z_nv = w_v . h_n
    d loss / d z_nv = s_n (softmax_v - [v = t_n])

Where logits are bent, z = cap * tanh(w . h / cap), and the gradient has the factor 1 - (z / cap)^2 more.

The gradient of the logits needs nothing but the logits, so the forward already makes the gradients of ``h`` and ``w``
a chunk of tokens at a time and nothing is computed twice: three matrix products, as in the plain way, and logits of
one chunk in the products' own precision. The idea is that of Hsu et al. 2024 (Liger Kernel, arXiv:2410.10989,
section 3.2). Softmax and the loss are in float32. Letters: N tokens, D width, V vocabulary; s, the weights of
tokens, is 1 where none is given.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from groundup.autograd import once
from groundup.devices import kind_of

CHUNK_BYTES = 2**27  # of one chunk's logits
SLICE_BYTES = 2**22  # of the float32 working copy: small enough for a processor's cache


def reference(
    hidden: Float[Tensor, "N D"],
    weight: Float[Tensor, "V D"],
    targets: Int[Tensor, "N"],
    *,
    bias: Float[Tensor, "V"] | None = None,
    cap: float | None = None,
    scale: Float[Tensor, "N"] | None = None,
) -> Float[Tensor, ""]:
    """Returns the summed cross-entropy in nats, from all logits at once: the definition; targets are in [0, V)."""
    logits = F.linear(hidden, weight, bias)
    losses = F.cross_entropy(bent(_wide(logits), cap), targets, reduction="none")
    return losses.sum() if scale is None else losses @ scale.to(losses.dtype)


def bent(logits: Float[Tensor, "*rows V"], cap: float | None) -> Float[Tensor, "*rows V"]:
    """Returns logits bent to stay below ``cap``; None leaves them as they are."""
    return logits if cap is None else cap * (logits / cap).tanh()


def chunked(
    hidden: Float[Tensor, "N D"],
    weight: Float[Tensor, "V D"],
    targets: Int[Tensor, "N"],
    *,
    bias: Float[Tensor, "V"] | None = None,
    cap: float | None = None,
    scale: Float[Tensor, "N"] | None = None,
) -> Float[Tensor, ""]:
    """Returns what `reference` does, holding the logits of one chunk of tokens at a time."""
    if torch.is_grad_enabled():
        return _Chunked.apply(hidden, weight, bias, targets, cap, scale)
    losses = token_losses(hidden, weight, targets, bias=bias, cap=cap)
    return losses.sum() if scale is None else losses @ scale.to(losses.dtype)


@torch.no_grad()
def token_losses(
    hidden: Float[Tensor, "N D"],
    weight: Float[Tensor, "V D"],
    targets: Int[Tensor, "N"],
    *,
    bias: Float[Tensor, "V"] | None = None,
    cap: float | None = None,
) -> Float[Tensor, "N"]:
    """Returns the cross-entropy of every token in nats, in float32, without gradients."""
    dtype = _product_dtype(hidden)
    weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
    losses = [
        F.cross_entropy(bent(_wide(F.linear(h.to(dtype), weight, bias)), cap), t, reduction="none")
        for h, t in zip(hidden.split(chunk_rows(weight)), targets.split(chunk_rows(weight)), strict=True)
    ]
    return torch.cat(losses) if losses else hidden.new_zeros(0, dtype=torch.float32)


def chunk_rows(weight: Tensor) -> int:
    """Returns how many tokens' logits make one chunk for a head of these weights (V, D)."""
    rows = CHUNK_BYTES // (weight.shape[0] * weight.element_size())
    return max(rows // 64, 1) * 64  # products of 1,334 rows take half as long again as those of 1,344


def _product_dtype(hidden: Tensor) -> torch.dtype:
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        cap: float | None,
        scale: Tensor | None,
    ) -> Tensor:
        dtype = _product_dtype(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            w, b = weight.to(dtype), None if bias is None else bias.to(dtype)
            loss = torch.zeros((), dtype=torch.promote_types(dtype, torch.float32), device=hidden.device)
            grad_hidden = torch.empty_like(hidden)
            grad_weight = grad_bias = None
            rows = chunk_rows(w)
            scales = None if scale is None else scale.split(rows)
            parts = zip(hidden.split(rows), targets.split(rows), grad_hidden.split(rows), strict=True)
            for i, (h, t, grad_h) in enumerate(parts):
                h = h.to(dtype)
                logits = F.linear(h, w, b)
                loss += _losses_to_gradients(logits, t, cap, scale=None if scales is None else scales[i])
                torch.mm(logits, w, out=grad_h) if grad_h.dtype == dtype else grad_h.copy_(logits @ w)
                # No name for the part: it would live on into the next chunk, and it is as large as the head.
                grad_weight = (logits.T @ h).to(weight.dtype) if grad_weight is None else grad_weight.add_(logits.T @ h)
                if bias is not None:
                    part = _wide(logits).sum(0).to(bias.dtype)
                    grad_bias = part if grad_bias is None else grad_bias.add_(part)
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        return loss

    @staticmethod
    @once
    def backward(  # pyrefly: ignore[bad-override]: the decorator hides the names
        ctx: Any, *grad_outputs: Any
    ) -> Any:
        (grad,) = grad_outputs
        # In place, for a head's gradient is large: autograd refuses a second backward, which would scale it again.
        made = (None if part is None else part.mul_(grad.to(part.dtype)) for part in ctx.saved_tensors)
        return *made, None, None, None


def _losses_to_gradients(logits: Tensor, targets: Tensor, cap: float | None, *, scale: Tensor | None) -> Tensor:
    """Replaces logits by the gradients of their losses, in place, and returns the sum of the losses."""
    loss = torch.zeros((), dtype=torch.promote_types(logits.dtype, torch.float32), device=logits.device)
    rows = max(1, SLICE_BYTES // (4 * logits.shape[1])) if kind_of(logits) == "cpu" else len(logits)
    scales = None if scale is None else _wide(scale)[:, None].split(rows)
    for i, (part, target) in enumerate(zip(logits.split(rows), targets[:, None].split(rows), strict=True)):
        wide = bent(_wide(part), cap)
        p = wide.softmax(-1)
        # Softmax alone reads and writes half as much as log-softmax and exp; the largest p gives what it divided by.
        total = wide.amax(-1, keepdim=True) - p.amax(-1, keepdim=True).log()
        losses = total - wide.gather(1, target)
        p.scatter_add_(1, target, torch.full_like(p[:, :1], -1.0))
        if scales is not None:
            losses, p = losses * scales[i], p.mul_(scales[i])
        loss += losses.sum()
        part.copy_(p if cap is None else p.mul_(1 - (wide / cap).square_()))
    return loss
