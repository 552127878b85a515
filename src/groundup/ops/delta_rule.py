"""The delta rule: what a token writes is the difference to what its key would read.

    u_t = b_t (v_t - k_t diag(a_t) S_{t-1})        S_t = diag(a_t) S_{t-1} + k_t u_t^T        y_t = q_t S_t

Within a chunk whose state before is S, with decayed keys, the u of all tokens are one triangular system (the WY or UT
representation of a product of Householder-like matrices):

    (I + tril_{-1}(b A)) U = b V - b K' S          A_ij = decayed k_i . k_j,   K' = K decayed from the chunk's start

Sources: Schlag et al. 2021 (arXiv:2102.11174), equation 24; Yang et al. 2024 (arXiv:2406.06484), section 3; decays:
Yang et al. 2024 (arXiv:2412.06464), section 3. Letters: as in `groundup.ops.linear_attention`.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from groundup.ops import kernels
from groundup.ops.linear_attention import chunk_length, cut, decayed_scores, first_state, in_chunks, score_flops


def reference(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T L"],
    b: Float[Tensor, "B H T"],
    *,
    decay: Float[Tensor, "#B #H #T #K"] | None = None,
    state: Float[Tensor, "B H K L"] | None = None,
    starts: Bool[Tensor, "B T"] | None = None,
) -> tuple[Float[Tensor, "B H T L"], Float[Tensor, "B H K L"]]:
    """Returns what each query reads, and the state after the last token, in float32 or wider: the definition.

    Args:
        q: queries.
        k: keys; of length 1 where the rule is to be stable.
        v: values.
        b: how much of the difference is written: 0 nothing, 1 all.
        decay: log a, at most 0; None means that nothing decays.
        state: the state before the first token; None means zeros.
        starts: at which tokens a document starts, which knows nothing of what was before; None means at none.
    """
    memory, read = first_state(k, v, state), []
    step = torch.zeros_like(k) if decay is None else decay.expand_as(k)
    for t in range(q.shape[2]):
        if starts is not None:
            memory = memory.masked_fill(starts[:, t, None, None, None], 0)
        memory = step[:, :, t, :, None].exp() * memory
        known = (k[:, :, t, :, None] * memory).sum(2)
        written = b[:, :, t, None] * (v[:, :, t] - known)
        memory = memory + k[:, :, t, :, None] * written[:, :, None, :]
        read.append((q[:, :, t, :, None] * memory).sum(2))
    return torch.stack(read, 2).to(v.dtype), memory


def chunked(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T L"],
    b: Float[Tensor, "B H T"],
    *,
    decay: Float[Tensor, "#B #H #T #K"] | None = None,
    state: Float[Tensor, "B H K L"] | None = None,
    starts: Bool[Tensor, "B T"] | None = None,
) -> tuple[Float[Tensor, "B H T L"], Float[Tensor, "B H K L"]]:
    """Returns what `reference` does, by products of matrices in chunks and one triangular system in each.

    What is written, and the state, are computed in float32 or wider; queries read in the type of ``v``.
    """
    if kernels.keep_matrices(v, tokens=q.shape[2], sides=(q.shape[3], v.shape[3])):
        return kernels.delta_rule(q, k, v, b, decay=decay, state=state, starts=starts)
    memory, tokens, wide = first_state(k, v, state), q.shape[2], torch.promote_types(v.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        at = cut(q, k, v, decay=decay, starts=starts)
        keys, b = at.k.to(wide), in_chunks(b[..., None], at.k.shape[3])  # (B, H, N, C, 1)
        left = b * decayed_scores(keys, keys, at.total).masked_fill(~at.seen, 0)
        right = b * torch.cat([at.v, keys * at.from_start], -1)
        solved = torch.linalg.solve_triangular(left.tril(-1), right, upper=False, unitriangular=True)
        fresh, known = solved.split([v.shape[-1], k.shape[-1]], -1)
        before, written = [], []
        chunks = (t.unbind(2) for t in (fresh, known, at.kept, at.k_to_end.mT))
        for new, asked, kept, ends in zip(*chunks, strict=True):
            before.append(memory)
            written.append(new - asked @ memory)
            memory = kept * memory + ends @ written[-1]
        read = at.read(torch.stack(written, 2).to(v.dtype), torch.stack(before, 2))
    return read.flatten(2, 3)[:, :, :tokens], memory


def flops(tokens: int, key_width: int, value_width: int, *, decays: int) -> int:
    """Returns the operations of the matrix products of `chunked` for one head of one row; the systems have none.

    Args:
        tokens: T.
        key_width: K.
        value_width: L.
        decays: how many numbers a head's decay is, 1 or K.
    """
    chunk = chunk_length(tokens, key_width, value_width)
    chunks = -(-tokens // chunk)
    scores = 2 * score_flops(chunk, key_width, decays=decays)
    return chunks * (scores + 2 * chunk * value_width * (chunk + 3 * key_width))


def backward_flops(tokens: int, key_width: int, value_width: int, *, decays: int) -> int:
    """Returns the operations of the backward of `chunked` from zeros, where nothing reads the last state.

    The gradient of each system's matrix is a product. The first chunk asks zeros, and nothing reads what the last one
    writes; in a text of one chunk its queries read zeros too.
    """
    chunk = chunk_length(tokens, key_width, value_width)
    systems = -(-tokens // chunk) * 2 * chunk * chunk * (key_width + value_width)
    spared = (4 if tokens <= chunk else 3) * 2 * chunk * key_width * value_width
    return 2 * flops(tokens, key_width, value_width, decays=decays) + systems - spared
