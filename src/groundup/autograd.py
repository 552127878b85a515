"""What is common to functions whose backward is written by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch


def once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a backward that autograd does not follow, and that refuses where it is to be differentiated again.

    PyTorch's ``once_differentiable`` refuses only where the way leads through the incoming gradient; the way through
    saved tensors is lost without a word.

    Raises:
        RuntimeError: it is called with ``create_graph=True``.
    """

    @wraps(backward)
    def checked(ctx: Any, *grads: Any) -> Any:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            name = backward.__qualname__.partition(".")[0].strip("_")
            raise RuntimeError(f"{name} has no second derivative; leave create_graph out, or use what it is a twin of")
        with torch.no_grad():
            return backward(ctx, *grads)

    return checked
