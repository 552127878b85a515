"""Twins that others wrote as kernels for a GPU, which operations take by themselves where their packages are installed.

- flash-linear-attention (Yang and Zhang 2024, https://github.com/fla-org/flash-linear-attention) for matrix states. It
  multiplies float32 in TF32, so it is taken for float32 only where `torch.set_float32_matmul_precision` allows that.
- mamba-ssm (Gu and Dao 2023, https://github.com/state-spaces/mamba) for the selective scan.

Every twin has the signature and the meaning of its operation's ``reference``. FlashAttention is not among them, because
PyTorch's own attention holds its kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

PACKAGES = {"fla": "flash-linear-attention", "mamba_ssm": "mamba-ssm"}  # by what is imported; that takes seconds
INSTALLED = {package for package in PACKAGES if find_spec(package) is not None}
SHORTEST, WIDEST = 16, 256  # of texts and of states' sides, between which matrix states have kernels worth their start
RESET = 1e30  # a step so long that whatever the rate, nothing is left of a state

Read = tuple[Float[Tensor, "B H T L"], Float[Tensor, "B H K L"]]


def keep_matrices(v: Tensor, *, tokens: int, sides: tuple[int, int]) -> bool:
    """Returns whether flash-linear-attention is to keep matrix states.

    Args:
        v: the values that are written, on their device and in their type.
        tokens: how many of them.
        sides: of the matrices.
    """
    fast = v.dtype in (torch.bfloat16, torch.float16)
    fast = fast or (v.dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest")
    return v.is_cuda and fast and tokens >= SHORTEST and max(sides) <= WIDEST and "fla" in INSTALLED


def scan_selectively(x: Tensor, *, before: Tensor | None) -> bool:
    """Returns whether mamba-ssm is to scan these inputs; it takes no states from before them."""
    return x.is_cuda and x.dtype != torch.float64 and before is None and "mamba_ssm" in INSTALLED


def linear_attention(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T L"],
    *,
    decay: Float[Tensor, "#B #H #T #K"] | None = None,
    state: Float[Tensor, "B H K L"] | None = None,
    starts: Bool[Tensor, "B T"] | None = None,
) -> Read:
    """Returns what `groundup.ops.linear_attention.reference` does."""
    from fla.ops.gla import chunk_gla
    from fla.ops.simple_gla import chunk_simple_gla

    if decay is not None and decay.shape[-1] > 1:
        return _run(chunk_gla, {"q": q, "k": k, "v": v, "g": decay.expand_as(k)}, state, starts)
    given = {} if decay is None else {"g": decay.expand(*q.shape[:3], 1)}
    return _run(chunk_simple_gla, {"q": q, "k": k, "v": v, **given}, state, starts)


def delta_rule(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T L"],
    b: Float[Tensor, "B H T"],
    *,
    decay: Float[Tensor, "#B #H #T #K"] | None = None,
    state: Float[Tensor, "B H K L"] | None = None,
    starts: Bool[Tensor, "B T"] | None = None,
) -> Read:
    """Returns what `groundup.ops.delta_rule.reference` does."""
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule
    from fla.ops.kda import chunk_kda

    given = {"q": q, "k": k, "v": v, "beta": b[..., None]}
    decay = torch.zeros_like(b)[..., None] if decay is None else decay  # a kernel without one has no float32
    if decay.shape[-1] > 1:
        return _run(chunk_kda, {**given, "g": decay.expand_as(k)}, state, starts)
    return _run(chunk_gated_delta_rule, {**given, "g": decay.expand(*q.shape[:3], 1)}, state, starts)


def diagonal_low_rank(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T L"],
    n: Float[Tensor, "B H T K"],
    p: Float[Tensor, "B H T K"],
    *,
    decay: Float[Tensor, "#B #H #T #K"],
    state: Float[Tensor, "B H K L"] | None = None,
    starts: Bool[Tensor, "B T"] | None = None,
) -> Read:
    """Returns what `groundup.ops.diagonal_low_rank.reference` does."""
    from fla.ops.rwkv7 import chunk_rwkv7

    given = {"r": q, "w": decay.expand_as(k), "k": k, "v": v, "a": -n, "b": p}
    return _run(chunk_rwkv7, given, state, starts)


def ssd(
    x: Float[Tensor, "B T H P"],
    step: Float[Tensor, "B T H"],
    a: Float[Tensor, "H"],
    b: Float[Tensor, "B T G N"],
    c: Float[Tensor, "B T G N"],
    *,
    before: Float[Tensor, "B H P N"] | None = None,
    starts: Bool[Tensor, "B T"] | None = None,
) -> tuple[Float[Tensor, "B T H P"], Float[Tensor, "B H P N"]]:
    """Returns what `groundup.ops.ssd.reference` does: linear attention whose queries are c and whose keys are b."""
    k, q = (t.repeat_interleave(x.shape[2] // t.shape[2], 2).transpose(1, 2) for t in (b, c))
    v, decay = ((x * step[..., None]).to(x.dtype).transpose(1, 2), (step * a)[..., None].transpose(1, 2))
    y, after = linear_attention(q, k, v, decay=decay, state=None if before is None else before.mT, starts=starts)
    return y.transpose(1, 2), after.mT


def selective_scan(
    x: Float[Tensor, "B T E"],
    step: Float[Tensor, "B T E"],
    a: Float[Tensor, "N E"],
    b: Float[Tensor, "B T N"],
    c: Float[Tensor, "B T N"],
    *,
    starts: Bool[Tensor, "B T"] | None = None,
) -> tuple[Float[Tensor, "B T E"], Float[Tensor, "B N E"]]:
    """Returns what `groundup.ops.selective_scan.reference` does, with states that have no gradient.

    The kernel knows no documents: before each, a token is put in that writes nothing and leaves nothing of the states.
    """
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    given = [t.float() for t in (x, step, b, c)]
    place = None
    if starts is not None:
        later = starts.index_fill(1, torch.zeros(1, dtype=torch.long, device=x.device), value=False)
        place = torch.arange(x.shape[1], device=x.device) + later.cumsum(1)  # (B, T), of each token among more of them
        length = int(place[:, -1].max()) + 1
        given = [_spread(t, place, length) for t in given]
        rows, tokens = later.nonzero(as_tuple=True)
        given[1] = given[1].index_put((rows, place[rows, tokens] - 1), given[1].new_tensor(RESET))
    u, delta, enters, leaves = (t.mT.contiguous() for t in given)
    y, last = selective_scan_fn(u, delta, a.mT.float().contiguous(), enters, leaves, return_last_state=True)
    y = y.mT if place is None else y.mT.gather(1, place[..., None].expand(-1, -1, x.shape[2]))
    return y.to(x.dtype), last.mT


def _spread(t: Float[Tensor, "B T C"], place: Int[Tensor, "B T"], length: int) -> Float[Tensor, "B S C"]:
    """Returns the tokens at their places among ``length``, with zeros between them."""
    wide = t.new_zeros(t.shape[0], length, t.shape[2])
    return wide.scatter(1, place[..., None].expand(-1, -1, t.shape[2]), t)


@torch.compiler.disable  # as the kernels are
def _run(
    kernel: Callable[..., Any], given: dict[str, Tensor], state: Tensor | None, starts: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Returns what a kernel makes of tensors (B, H, T, *) and of the states before them.

    The kernels take tensors (B, T, H, *), and documents as one row that is cut where they start.
    """
    v, sums = given["v"], {"g", "w", "beta"}  # which the kernels add up, in float32; one of a head has no axis
    rows, tokens = v.shape[0], v.shape[2]
    laid = {name: t.transpose(1, 2).to(torch.float32 if name in sums else v.dtype) for name, t in given.items()}
    laid = {name: t.squeeze(-1) if name in sums and t.shape[-1] == 1 else t for name, t in laid.items()}
    first, cuts, last = None if state is None else state.float(), None, slice(None)
    if starts is not None:
        laid = {name: t.flatten(0, 1)[None] for name, t in laid.items()}
        begins = starts.index_fill(1, torch.zeros(1, dtype=torch.long, device=v.device), value=True)
        cuts = torch.cat([begins.flatten().nonzero()[:, 0], torch.tensor([rows * tokens], device=v.device)])
        last = begins.sum(1).cumsum(0) - 1  # the number of each row's last document
        if first is not None:
            known = first.masked_fill(starts[:, 0, None, None, None], 0)
            every = known.new_zeros(len(cuts) - 1, *known.shape[1:])
            first = every.index_copy(0, last - begins.sum(1) + 1, known)
    laid = {name: t.contiguous() for name, t in laid.items()}
    with torch.autocast(v.device.type, enabled=False):
        y, after = kernel(**laid, scale=1.0, initial_state=first, output_final_state=True, cu_seqlens=cuts)
    return y.reshape(rows, tokens, *y.shape[2:]).transpose(1, 2).to(v.dtype), after[last]
