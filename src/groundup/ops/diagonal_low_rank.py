"""A matrix state that decays, forgets in one direction and takes in a product: the rule of RWKV-7.

    S_t = diag(a_t) S_{t-1} - p_t (n_t S_{t-1}) + k_t v_t^T        y_t = q_t S_t

Within a chunk whose state before is S, with decayed vectors, what is forgotten u_t = n_t S_{t-1} is one triangular
system:

    (I + A_np) U = A_nk V + N' S        A_xy,ij = decayed x_i . y_j for j < i,   N' = N decayed from the chunk's start

Source: Peng et al. 2025 (RWKV-7, arXiv:2503.14456), section 3, where it is the generalised delta rule. Letters: as in
`groundup.ops.linear_attention`.
"""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from groundup.ops import kernels
from groundup.ops.linear_attention import chunk_length, cut, first_state, in_chunks, score_flops


def reference(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T L"],
    n: Float[Tensor, "B H T K"],
    p: Float[Tensor, "B H T K"],
    *,
    decay: Float[Tensor, "#B #H #T #K"],
    state: Float[Tensor, "B H K L"] | None = None,
    starts: Bool[Tensor, "B T"] | None = None,
) -> tuple[Float[Tensor, "B H T L"], Float[Tensor, "B H K L"]]:
    """Returns what each query reads, and the state after the last token, in float32 or wider: the definition.

    Args:
        q: queries.
        k: keys.
        v: values.
        n: what is looked up to be forgotten.
        p: where it is taken away.
        decay: log a, at most 0.
        state: the state before the first token; None means zeros.
        starts: at which tokens a document starts, which knows nothing of what was before; None means at none.
    """
    memory, read = first_state(k, v, state), []
    step = decay.expand_as(k)
    for t in range(q.shape[2]):
        if starts is not None:
            memory = memory.masked_fill(starts[:, t, None, None, None], 0)
        gone = (n[:, :, t, :, None] * memory).sum(2)
        memory = step[:, :, t, :, None].exp() * memory - p[:, :, t, :, None] * gone[:, :, None, :]
        memory = memory + k[:, :, t, :, None] * v[:, :, t, None, :]
        read.append((q[:, :, t, :, None] * memory).sum(2))
    return torch.stack(read, 2).to(v.dtype), memory


def chunked(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T L"],
    n: Float[Tensor, "B H T K"],
    p: Float[Tensor, "B H T K"],
    *,
    decay: Float[Tensor, "#B #H #T #K"],
    state: Float[Tensor, "B H K L"] | None = None,
    starts: Bool[Tensor, "B T"] | None = None,
) -> tuple[Float[Tensor, "B H T L"], Float[Tensor, "B H K L"]]:
    """Returns what `reference` does, by products of matrices in chunks and one triangular system in each.

    All is computed in float32 or wider; the kernel of a GPU, which is taken for 16-bit values alone, computes in those.
    """
    if v.dtype != torch.float32 and kernels.keep_matrices(v, tokens=q.shape[2], sides=(q.shape[3], v.shape[3])):
        return kernels.diagonal_low_rank(q, k, v, n, p, decay=decay, state=state, starts=starts)
    memory, tokens, narrow = first_state(k, v, state), q.shape[2], v.dtype
    q, k, v, n, p, decay = (t.to(memory.dtype) for t in (q, k, v, n, p, decay))
    with torch.autocast(q.device.type, enabled=False):
        if starts is not None:
            n = n.masked_fill(starts[:, None, :, None], 0)
        # What a token forgets is read before its own decay: as a query, it belongs to the token before.
        early = F.pad(n[:, :, 1:], (0, 0, 0, 1))
        cuts = partial(cut, v=v, decay=decay.expand_as(k), starts=starts)
        read_k, read_p, gone_k, gone_p = cuts(q, k), cuts(q, p), cuts(early, k), cuts(early, p)
        values = read_k.v
        system, taken = (F.pad(at.scores[:, :, :, :-1], (0, 0, 1, 0)) for at in (gone_p, gone_k))
        first = in_chunks(n, values.shape[3])[:, :, :, :1]
        from_start = torch.cat([first, gone_k.q_to_start[:, :, :, :-1]], 3)
        right = torch.cat([taken @ values, from_start], -1)
        solved = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
        fresh, known = solved.split([v.shape[-1], k.shape[-1]], -1)
        added, before, gone = read_k.k_to_end.mT @ values, [], []
        chunks = (t.unbind(2) for t in (fresh, known, added, read_k.kept, read_p.k_to_end.mT))
        for new, asked, into, kept, ends in zip(*chunks, strict=True):
            before.append(memory)
            gone.append(new + asked @ memory)
            memory = kept * memory + into - ends @ gone[-1]
        read = read_k.read(values, torch.stack(before, 2)) - read_p.scores @ torch.stack(gone, 2)
    return read.flatten(2, 3)[:, :, :tokens].to(narrow), memory


def flops(tokens: int, key_width: int, value_width: int) -> int:
    """Returns the operations of the matrix products of `chunked` for one head of one row; the systems have none.

    Args:
        tokens: T.
        key_width: K.
        value_width: L.
    """
    chunk = chunk_length(tokens, key_width, value_width)
    chunks = -(-tokens // chunk)
    scores = 4 * score_flops(chunk, key_width, decays=key_width)
    return chunks * (scores + 2 * chunk * value_width * (3 * chunk + 4 * key_width))


def backward_flops(tokens: int, key_width: int, value_width: int) -> int:
    """Returns the operations of the backward of `chunked` from zeros, where nothing reads the last state.

    The gradient of each system's matrix is a product. The first chunk asks zeros, and nothing reads what the last one
    takes away; in a text of one chunk nothing reads what it adds either, and its queries read zeros.
    """
    chunk = chunk_length(tokens, key_width, value_width)
    systems = -(-tokens // chunk) * 2 * chunk * chunk * (key_width + value_width)
    spared = (6 if tokens <= chunk else 3) * 2 * chunk * key_width * value_width
    return 2 * flops(tokens, key_width, value_width) + systems - spared
