"""Products of rows with the matrix of their expert: one product per expert, on its own rows alone.

    y_n = W_{e(n)} x_n;   dx_n = W_{e(n)}^T dy_n;   dW_e = sum_{n: e(n) = e} dy_n x_n^T

Rows come sorted by expert, and ``ends`` says where each expert's end. Source: Gale et al. 2022 (MegaBlocks,
arXiv:2211.15841), section 3. Letters: N rows, E experts, D inputs, F outputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from groundup.devices import kind_of
from groundup.inside import INSIDES

ALIGNMENT_BYTES = 16  # of the rows that PyTorch's own kernel takes (torch 2.13)

# On a processor, products of an expert are made of a multiple of so many rows, or of an eighth of them and more. oneDNN
# keeps a kernel of some 550 KiB for each number of rows that it meets in bfloat16, and a router sends another number to
# each expert at each step: a Mixtral of 20M parameters grew by 100 MiB a step, to 1 GiB (torch 2.13).
FEWEST_ROWS = 32


def reference(x: Float[Tensor, "N D"], weight: Float[Tensor, "E F D"], ends: Int[Tensor, "E"]) -> Float[Tensor, "N F"]:
    """Returns what every expert makes of every row, and of that the row's own: the definition."""
    every = torch.einsum("nd,efd->enf", x, weight)
    expert = torch.searchsorted(ends, torch.arange(len(x), device=x.device), right=True)
    own = F.one_hot(expert, len(weight)).T[:, :, None]
    return (every * own).sum(0)


def grouped(x: Float[Tensor, "N D"], weight: Float[Tensor, "E F D"], ends: Int[Tensor, "E"]) -> Float[Tensor, "N F"]:
    """Returns what `reference` does, from the products that it keeps; ``ends`` is int32."""
    return _products(x, weight, ends)


@torch.library.custom_op(
    "groundup::expert_products", mutates_args=(), schema="(Tensor x, Tensor weight, Tensor ends) -> Tensor"
)
def _products(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """Returns (N, F)."""
    if _is_taken(x, weight):
        return F.grouped_mm(x, weight.mT, offs=ends)
    return _products_by_expert(x, weight, ends.tolist())


def _products_by_expert(x: Tensor, weight: Tensor, ends: Sequence[int]) -> Tensor:
    out = x.new_empty(x.shape[0], weight.shape[1])
    for expert, rows in _groups(ends):
        more = _widened(rows, most=len(x))  # with rows of other experts, of which nothing is kept
        out[rows] = torch.mm(x[more], weight[expert].T)[rows.start - more.start :][: rows.stop - rows.start]
    return out


@torch.library.custom_op("groundup::expert_sums", mutates_args=(), schema="(Tensor y, Tensor x, Tensor ends) -> Tensor")
def _sums(y: Tensor, x: Tensor, ends: Tensor) -> Tensor:
    """Returns, for each expert, the sum of its rows' outer products of ``y`` (N, F) and ``x`` (N, D): (E, F, D)."""
    if _is_taken(y, x):
        idle = ends.diff(prepend=ends.new_zeros(1)) == 0
        return F.grouped_mm(y.T, x, offs=ends).masked_fill_(idle[:, None, None], 0.0)  # an empty sum may be unwritten
    return _sums_by_expert(y, x, ends.tolist())


def _sums_by_expert(y: Tensor, x: Tensor, ends: Sequence[int]) -> Tensor:
    out = x.new_zeros(len(ends), y.shape[1], x.shape[1])
    for expert, rows in _groups(ends):
        torch.mm(_padded(y[rows]).T, _padded(x[rows]), out=out[expert])
    return out


@_products.register_fake
def _empty_products(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[1])


@_sums.register_fake
def _empty_sums(y: Tensor, x: Tensor, ends: Tensor) -> Tensor:
    return x.new_empty(ends.shape[0], y.shape[1], x.shape[1])


def _save_products(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _products_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    x, weight, ends = ctx.saved_tensors
    grad = grad.contiguous()
    of_x, of_weight, _ = ctx.needs_input_grad
    return _products(grad, weight.mT, ends) if of_x else None, _sums(grad, x, ends) if of_weight else None, None


_products.register_autograd(_products_backward, setup_context=_save_products)
for _device in ("cpu", "cuda"):
    _products.register_autocast(_device, torch.bfloat16)


@register_flop_formula(torch.ops.groundup.expert_products)
def _product_flops(x: tuple[int, ...], weight: tuple[int, ...], *_: Any, **__: Any) -> int:
    """A product of each row with one matrix."""
    return 2 * math.prod(x) * weight[1]


@register_flop_formula(torch.ops.groundup.expert_sums)
def _sum_flops(y: tuple[int, ...], x: tuple[int, ...], *_: Any, **__: Any) -> int:
    """A product of each row of the one side with its row of the other."""
    return 2 * math.prod(y) * x[1]


def _groups(ends: Sequence[int]) -> Iterator[tuple[int, slice]]:
    """Yields the experts that have rows, and these."""
    start = 0
    for expert, end in enumerate(ends):
        if end > start:
            yield expert, slice(start, end)
        start = end


def _widened(rows: slice, *, most: int) -> slice:
    """Returns these rows with so many beside them that kernels are few, up to ``most`` in all."""
    count = min(_rounded(rows.stop - rows.start), most)
    start = min(rows.start, most - count)
    return slice(start, start + count)


def _padded(rows: Tensor) -> Tensor:
    """Returns rows (M, D) with so many rows of zeros after them that kernels are few."""
    missing = _rounded(len(rows)) - len(rows)
    return F.pad(rows, (0, 0, 0, missing)) if missing else rows


def _rounded(count: int) -> int:
    """Returns a number of rows that is little larger: 8 to 16 of them lie between a power of two and the next."""
    grain = max(FEWEST_ROWS, 1 << max(count.bit_length() - 4, 0))
    return -(-count // grain) * grain


def _is_taken(*operands: Tensor) -> bool:
    """Returns whether PyTorch's grouped product, which is one kernel on a GPU, takes these operands."""
    if any(kind_of(t) != "cuda" for t in operands):
        return False
    sizes = [stride * t.element_size() for t in operands for stride in t.stride() if stride != 1]
    return all(t.dtype == torch.bfloat16 for t in operands) and not any(size % ALIGNMENT_BYTES for size in sizes)


def _spread(rows: int, experts: int) -> list[int]:
    """The ends of experts of which the first has half as many rows as they have in the mean, and the last half more."""
    shares = [0.5 + (expert + 0.5) / experts for expert in range(experts)]
    return [round(rows * sum(shares[: expert + 1]) / experts) for expert in range(experts)]


def _inside_products(x: Tensor, weight: Tensor, ends: Tensor) -> Any:
    return NotImplemented if _is_taken(x, weight) else _products_by_expert(x, weight, _spread(len(x), len(weight)))


def _inside_sums(y: Tensor, x: Tensor, ends: Tensor) -> Any:
    return NotImplemented if _is_taken(y, x) else _sums_by_expert(y, x, _spread(len(x), len(ends)))


INSIDES[torch.ops.groundup.expert_products.default] = _inside_products
INSIDES[torch.ops.groundup.expert_sums.default] = _inside_sums
