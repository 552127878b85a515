"""Linear attention: a matrix for each head takes in what tokens write, decays, and is read by queries.

    S_t = diag(a_t) S_{t-1} + k_t v_t^T        y_t = q_t S_t

The decay a_t in (0, 1] is one number of a head or one of each of the K key values, fixed or the token's own, or 1.

Sources: Katharopoulos et al. 2020 (arXiv:2006.16236), equations 16 to 20; the form in chunks: Sun et al. 2023
(arXiv:2307.08621), equation 7, and Yang et al. 2023 (arXiv:2312.06635), section 4. Letters: L the width of values,
C the tokens of a chunk, N chunks, g = log a.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from groundup.ops import kernels

Chunked = Float[Tensor, "_B _H N C _K"]
SHORTEST, LONGEST = 16, 256  # chunks, in tokens


def reference(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T L"],
    *,
    decay: Float[Tensor, "#B #H #T #K"] | None = None,
    state: Float[Tensor, "B H K L"] | None = None,
    starts: Bool[Tensor, "B T"] | None = None,
) -> tuple[Float[Tensor, "B H T L"], Float[Tensor, "B H K L"]]:
    """Returns what each query reads, and the state after the last token, in float32 or wider: the definition.

    Args:
        q: queries.
        k: keys.
        v: values.
        decay: log a, at most 0; None means that nothing decays.
        state: the state before the first token; None means zeros.
        starts: at which tokens a document starts, which knows nothing of what was before; None means at none.
    """
    memory, read = first_state(k, v, state), []
    step = torch.zeros_like(k) if decay is None else decay.expand_as(k)
    for t in range(q.shape[2]):
        if starts is not None:
            memory = memory.masked_fill(starts[:, t, None, None, None], 0)
        memory = step[:, :, t, :, None].exp() * memory + k[:, :, t, :, None] * v[:, :, t, None, :]
        read.append((q[:, :, t, :, None] * memory).sum(2))
    return torch.stack(read, 2).to(v.dtype), memory


def chunked(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T L"],
    *,
    decay: Float[Tensor, "#B #H #T #K"] | None = None,
    state: Float[Tensor, "B H K L"] | None = None,
    starts: Bool[Tensor, "B T"] | None = None,
) -> tuple[Float[Tensor, "B H T L"], Float[Tensor, "B H K L"]]:
    """Returns what `reference` does, by products of matrices within and between chunks.

    Products are in the type of ``v``; decays, and the sums that go from chunk to chunk, in float32 or wider.
    """
    if kernels.keep_matrices(v, tokens=q.shape[2], sides=(q.shape[3], v.shape[3])):
        return kernels.linear_attention(q, k, v, decay=decay, state=state, starts=starts)
    memory, narrow, tokens = first_state(k, v, state), v.dtype, q.shape[2]
    with torch.autocast(q.device.type, enabled=False):
        at = cut(q, k, v, decay=decay, starts=starts)
        added = (at.k_to_end.to(narrow).mT @ at.v).to(memory.dtype)  # (B, H, N, K, L)
        before = []
        for into, kept in zip(added.unbind(2), at.kept.unbind(2), strict=True):
            before.append(memory)
            memory = torch.addcmul(into, kept, memory)
        read = at.read(at.v, torch.stack(before, 2))
    return read.flatten(2, 3)[:, :, :tokens], memory


@dataclass(frozen=True)
class Chunks:
    """What chunks are made of, whichever rule writes to the state.

    Attributes:
        k: keys.
        v: values.
        seen: whether token i of a chunk sees token j.
        total: the sum of g from the chunk's start to each token.
        scores: q_i . k_j, decayed from j to i; zero where i does not see j.
        q_to_start: queries, decayed from the chunk's start; zero where a document has started since.
        k_to_end: keys, decayed to the chunk's end; zero where a document starts before that.
        from_start: what decays the state before the chunk for each of its tokens; zero as in ``q_to_start``.
        kept: what decays the state across the chunk.
    """

    k: Chunked
    v: Chunked
    seen: Bool[Tensor, "_B _H N C C"]
    total: Chunked
    scores: Float[Tensor, "B H N C C"]
    q_to_start: Chunked
    k_to_end: Chunked
    from_start: Chunked
    kept: Float[Tensor, "_B _H N _K 1"]

    def read(self, values: Chunked, states: Float[Tensor, "B H N K L"]) -> Float[Tensor, "B H N C L"]:
        """Returns what the queries read of the values of their chunk and of the state before it."""
        narrow = values.dtype
        return self.scores.to(narrow) @ values + self.q_to_start.to(narrow) @ states.to(narrow)


def cut(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T L"],
    *,
    decay: Float[Tensor, "#B #H #T #K"] | None,
    starts: Bool[Tensor, "B T"] | None,
) -> Chunks:
    """Returns the sequence in chunks; what fills up the last of them writes nothing and does not decay."""
    tokens, wide = q.shape[2], torch.promote_types(q.dtype, torch.float32)
    chunk = chunk_length(tokens, k.shape[-1], v.shape[-1])
    g = k.new_zeros(1, 1, 1, 1) if decay is None else decay
    total = in_chunks(g.to(wide).expand(-1, -1, tokens, -1), chunk).cumsum(3)
    from_start, to_end, kept = total.exp(), (total[:, :, :, -1:] - total).exp(), total[:, :, :, -1, :, None].exp()
    seen = torch.ones(chunk, chunk, dtype=torch.bool, device=q.device).tril().expand(1, 1, total.shape[2], -1, -1)
    if starts is not None:
        document = in_chunks(starts[:, None, :, None], chunk).squeeze(-1)  # (B, 1, N, C)
        document = document.flatten(2).cumsum(2).view_as(document)
        last = document[..., -1:]
        first = F.pad(last[:, :, :-1], (0, 0, 1, 0))  # the document before the chunk: 0 before the first
        seen = seen & (document[..., :, None] == document[..., None, :])
        from_start = from_start * (document == first)[..., None]
        to_end = to_end * (document == last)[..., None]
        kept = kept * (first == last)[..., None]
    q, k = in_chunks(q, chunk), in_chunks(k, chunk)
    return Chunks(
        k=k,
        v=in_chunks(v, chunk),
        seen=seen,
        total=total,
        scores=decayed_scores(q, k, total).masked_fill(~seen, 0),
        q_to_start=q * from_start,
        k_to_end=k * to_end,
        from_start=from_start,
        kept=kept,
    )


def in_chunks(x: Shaped[Tensor, "_B _H T _K"], chunk: int) -> Shaped[Tensor, "_B _H N C _K"]:
    """Returns the tokens in chunks of this length, the last one filled up with zeros."""
    return F.pad(x, (0, 0, 0, -x.shape[2] % chunk)).unflatten(2, (-1, chunk))


def decayed_scores(q: Chunked, k: Chunked, total: Chunked) -> Float[Tensor, "B H N C C"]:
    """Returns sum_K q_i k_j exp(total_i - total_j) for i >= j; what it returns above the diagonal has no meaning.

    With one decay of all K values it is a factor of the scores. Otherwise pairs of blocks of 1, 2, 4, ... tokens are
    multiplied: i in the second block, j in the first, both decayed to where the blocks meet. Each pair of tokens is
    met once, and no exponent is above 0, however strong the decay.
    """
    if total.shape[-1] == 1:
        between = (total - total.mT).clamp(max=0).exp()
        return (q @ k.mT) * between.to(q.dtype)
    blocks = (q * k).sum(-1)[..., None, None]  # (B, H, N, C, 1, 1)
    for half in (2**level for level in range((q.shape[3] - 1).bit_length())):
        (_, late), (first, _) = (x.unflatten(3, (-1, 2, half)).unbind(4) for x in (q, k))
        at_first, at_late = total.unflatten(3, (-1, 2, half)).unbind(4)
        meet = at_first[..., -1:, :]
        queries, keys = late * (at_late - meet).exp(), first * (meet - at_first).exp()
        upper, lower = blocks.unflatten(3, (-1, 2)).unbind(4)
        below = torch.cat([(queries.to(q.dtype) @ keys.to(q.dtype).mT), lower], -1)
        blocks = torch.cat([F.pad(upper, (0, half)), below], -2)
    return blocks.squeeze(3)


def first_state(
    k: Float[Tensor, "B H T K"], v: Float[Tensor, "B H T L"], state: Float[Tensor, "B H K L"] | None
) -> Float[Tensor, "B H K L"]:
    """Returns the state before the first token, in float32 or wider."""
    wide = torch.promote_types(v.dtype, torch.float32)
    if state is not None:
        return state.to(wide)
    return torch.zeros(*k.shape[:2], k.shape[3], v.shape[3], dtype=wide, device=v.device)


def chunk_length(tokens: int, key_width: int, value_width: int) -> int:
    """Returns the tokens of a chunk: a power of two, where scores and states take about as much memory."""
    longest, chunk = SHORTEST, 1
    while longest < LONGEST and longest**2 < key_width * value_width:
        longest *= 2
    while chunk < min(tokens, longest):
        chunk *= 2
    return chunk


def flops(tokens: int, key_width: int, value_width: int, *, decays: int) -> int:
    """Returns the operations of the matrix products of `chunked` for one head of one row.

    Args:
        tokens: T.
        key_width: K.
        value_width: L.
        decays: how many numbers a head's decay is, 1 or K.
    """
    chunk = chunk_length(tokens, key_width, value_width)
    chunks = -(-tokens // chunk)
    return chunks * (score_flops(chunk, key_width, decays=decays) + 2 * chunk * value_width * (chunk + 2 * key_width))


def backward_flops(tokens: int, key_width: int, value_width: int, *, decays: int) -> int:
    """Returns the operations of the backward of `chunked` from zeros, where nothing reads the last state.

    In a text of one chunk nothing reads what it adds to the state, and its queries read zeros: of their two products
    one is left of four.
    """
    chunk = chunk_length(tokens, key_width, value_width)
    spared = 3 * 2 * chunk * key_width * value_width if tokens <= chunk else 0
    return 2 * flops(tokens, key_width, value_width, decays=decays) - spared


def score_flops(chunk: int, key_width: int, *, decays: int) -> int:
    """Returns the operations of `decayed_scores` for one chunk of one head."""
    return 2 * chunk * chunk * key_width if decays == 1 else chunk * (chunk - 1) * key_width
