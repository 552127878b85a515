"""Activations, by the names of the field."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

from torch import Tensor
from torch.nn import functional as F

from groundup.specs import Limit

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,  # Hendrycks and Gimpel 2016, arXiv:1606.08415
    "gelu_tanh": partial(F.gelu, approximate="tanh"),  # the same paper's approximation, used by GPT-2
    "gelu_sigmoid": lambda x: x * (1.702 * x).sigmoid(),  # the same paper's other approximation, used by gpt-oss
    "silu": F.silu,  # Swish: Ramachandran et al. 2017, arXiv:1710.05941
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),  # So et al. 2021, arXiv:2109.08668
}

Act = Annotated[str, Limit.one_of(ACTIVATIONS)]


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """Returns the activation of this name, an `Act`."""
    return ACTIVATIONS[name]
