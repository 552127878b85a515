"""Root-mean-square norm of the last axis.

    y = w * x r,   r = 1 / sqrt(mean(x^2) + eps)
    dw = sum (g * x) r;   dx = r g * w - x r^3 ((g * x) . w) / D

Source: Zhang and Sennrich 2019 (arXiv:1910.07467), equation 4. Letters: D width.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from groundup.autograd import once
from groundup.devices import kind_of


def reference(x: Float[Tensor, "*rows D"], weight: Float[Tensor, "D"], *, eps: float) -> Float[Tensor, "*rows D"]:
    """Returns the normed vectors, computed in float32 or wider: the definition."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide * (wide.square().mean(-1, keepdim=True) + eps).rsqrt() * weight).to(x.dtype)


def rms_norm(x: Float[Tensor, "*rows D"], weight: Float[Tensor, "D"], *, eps: float) -> Float[Tensor, "*rows D"]:
    """Returns what `reference` does; PyTorch has a fused kernel, but none for training on a processor (torch 2.13).

    There its plain operations take twice as long as this module's and keep three times as much for the backward.
    """
    if x.dtype != weight.dtype:  # PyTorch has no fused kernel for it, and warns
        wide = torch.promote_types(x.dtype, weight.dtype)
        return rms_norm(x.to(wide), weight.to(wide), eps=eps).to(x.dtype)
    plain = kind_of(x) == "cpu" and x.dtype in (torch.float32, torch.float64)
    if plain and torch.is_grad_enabled():
        return _RMSNorm.apply(x, weight, eps)
    return F.rms_norm(x, weight.shape, weight, eps)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        root = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, root)
        return (x * root).mul_(weight)

    @staticmethod
    @once
    def backward(  # pyrefly: ignore[bad-override]: the decorator hides the names
        ctx: Any, *grad_outputs: Any
    ) -> Any:
        (grad,), (x, weight, root) = grad_outputs, ctx.saved_tensors
        product = (grad * x).reshape(-1, x.shape[-1])
        along = (product @ weight).view_as(root) * root.pow(3) / -x.shape[-1]
        return (grad * weight).mul_(root).addcmul_(x, along), product.mT @ root.flatten(), None
