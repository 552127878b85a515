"""Causal softmax attention to the tokens that hash alike: queries that are keys too, sorted by bucket, in chunks.

    b_t = argmax [q_t R; -q_t R],   k_t = q_t / (rms(q_t) sqrt(K)),   one random R for each round
    y_t = sum_r p_r o_rt,   o_rt = softmax_s(q_t . k_s) v_s,   p_r = softmax_r(log sum_s exp q_t . k_s)

In round r tokens are sorted by bucket, then by place, and cut into chunks of C; a token sees its own chunk and the
``before`` ones before it, of which the first follow the last. All rounds are one such row of chunks. A token sees
nothing that comes after it, and itself only where it sees nothing else. What it sees of the past depends on what comes
after it, by which chunks are cut.
Source: Kitaev et al. 2020 (Reformer, arXiv:2001.04451), section 2; the hash: Andoni et al. 2015 (arXiv:1509.02897).
Letters: R rounds, N chunks of C, W = (1 + before) C.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

HIDDEN, ITSELF = -1e9, -1e5  # scores: of what is not to be seen, and of a token itself, which is better than that
EPS = 1e-6  # in the norm of keys


def reference(
    q: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T L"],
    bucket: Int[Tensor, "B H T R"],
    *,
    chunk: int,
    before: int,
    real: int,
) -> Float[Tensor, "B H T L"]:
    """Returns the attention of every token: the definition, chunk by chunk.

    Args:
        q: queries, from which keys are made; T is a multiple of ``chunk``.
        v: values.
        bucket: of each token in each round.
        chunk: C.
        before: how many chunks before its own a token sees.
        real: how many tokens there are; the rest fills up the last chunk, in the last bucket, and nobody sees it.
    """
    rounds, k = bucket.shape[3], unit(q)
    rows = []
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            order = torch.cat([bucket[b, h, :, r].argsort(stable=True) for r in range(rounds)])
            chunks = order.view(-1, chunk)
            found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(q.shape[2])]
            for n, places in enumerate(chunks):
                seen = torch.cat([chunks[(n - i) % len(chunks)] for i in range(before, 0, -1)] + [places])
                for t in places.tolist():
                    score = k[b, h, seen] @ q[b, h, t]
                    score = score.masked_fill((seen > t) | (seen >= real), HIDDEN).masked_fill(seen == t, ITSELF)
                    found[t].append((score.logsumexp(0), score.softmax(0) @ v[b, h, seen]))
            rows += [_of_rounds(*map(torch.stack, zip(*each, strict=True))) for each in found]
    return torch.stack(rows).view(*q.shape[:3], -1)


def attend(
    q: Float[Tensor, "B H T K"],
    v: Float[Tensor, "B H T L"],
    bucket: Int[Tensor, "B H T R"],
    *,
    chunk: int,
    before: int,
    real: int,
    dropout: float = 0.0,
) -> Float[Tensor, "B H T L"]:
    """Returns what `reference` does, all chunks at once; ``dropout`` is of the weights."""
    tokens, rounds = q.shape[2], bucket.shape[3]
    order = (bucket.mT.long() * tokens + torch.arange(tokens, device=q.device)).argsort(-1)  # (B, H, R, T)
    place = order.flatten(2)
    q_sorted, k_sorted, v_sorted = (
        _pick(t, place).unflatten(2, (-1, chunk)) for t in (q, unit(q), v)
    )  # (B, H, N, C, K)
    asked = place.unflatten(2, (-1, chunk))
    seen = _with_those_before(asked, before)
    score = q_sorted @ _with_those_before(k_sorted, before).mT  # (B, H, N, C, W)
    score = score.to(torch.promote_types(score.dtype, torch.float32))
    hidden = (seen[..., None, :] > asked[..., None]) | (seen >= real)[..., None, :]
    score = score.masked_fill(hidden, HIDDEN).masked_fill(seen[..., None, :] == asked[..., None], ITSELF)
    size = score.logsumexp(-1, keepdim=True)
    weight = F.dropout(score.softmax(-1), dropout).to(v.dtype)
    out = (weight @ _with_those_before(v_sorted, before)).flatten(2, 3).unflatten(2, (rounds, -1))
    back = order.argsort(-1)[..., None]  # where each token is in each round
    out, size = out.gather(3, back.expand_as(out)), size.flatten(2).unflatten(2, (rounds, -1)).gather(3, back[..., 0])
    return _of_rounds(size.movedim(2, 0), out.movedim(2, 0))


def last(
    q: Float[Tensor, "B H K"],
    k: Float[Tensor, "B H S K"],
    v: Float[Tensor, "B H S L"],
    bucket: Int[Tensor, "B H S R"],
    place: Int[Tensor, "B"],
    *,
    chunk: int,
    before: int,
) -> Float[Tensor, "B H L"]:
    """Returns the attention of the last token of each row: that of a text that ends with it.

    A text of at most one chunk is read whole; in a longer one chunks are counted from its first sorted token, and what
    would be before the first or after the last is taken from the other end.

    Args:
        q: the query.
        k: queries of all tokens, the last one's too, from which keys are made; what comes after it is not read.
        v: values.
        bucket: of each token in each round.
        place: where the last token is.
        chunk: C.
        before: how many chunks before its own a token sees.
    """
    room, there = k.shape[2], torch.arange(k.shape[2], device=q.device)
    total, at = (place + 1)[:, None, None, None], place[:, None, None, None]  # (B, 1, 1, 1)
    key = torch.where(there < total, bucket.mT.long() * room + there, torch.iinfo(torch.int64).max)  # (B, H, R, S)
    order, mine = key.argsort(-1), key.gather(3, at.expand(*key.shape[:3], 1))
    within = torch.arange((before + 1) * chunk, device=q.device)
    sorted_place = ((key < mine).sum(-1, keepdim=True) // chunk - before) * chunk + within
    seen = torch.where(
        total <= chunk, within.clamp(max=room - 1), order.gather(3, sorted_place % total)
    )  # (B, H, R, W)
    score = (_pick(unit(k), seen.flatten(2)).unflatten(2, seen.shape[2:]) @ q[:, :, None, :, None]).squeeze(-1)
    score = score.to(torch.promote_types(score.dtype, torch.float32))
    score = score.masked_fill((total <= chunk) & (within >= total), HIDDEN).masked_fill(seen == at, ITSELF)
    size = score.logsumexp(-1)
    values = _pick(v, seen.flatten(2)).unflatten(2, seen.shape[2:])
    out = (score.softmax(-1).to(v.dtype)[..., None, :] @ values).squeeze(-2)
    return _of_rounds(size.movedim(2, 0), out.movedim(2, 0))


def buckets(
    q: Float[Tensor, "B H T K"], turns: Float[Tensor, "H K R M"], factors: Sequence[int]
) -> Int[Tensor, "B H T R"]:
    """Returns the bucket of each query in each round, which has no gradient.

    Args:
        q: queries.
        turns: random directions, half as many as buckets.
        factors: how many buckets there are: the product; each factor has directions of its own, half as many as it.
    """
    with torch.no_grad():
        along = (q @ turns.to(q.dtype).flatten(2)).unflatten(-1, turns.shape[2:])  # (B, H, T, R, M)
        bucket, step = torch.zeros(along.shape[:-1], dtype=torch.int64, device=q.device), 1
        for part, count in zip(along.split([count // 2 for count in factors], -1), factors, strict=True):
            bucket = bucket + step * torch.cat([part, -part], -1).argmax(-1)
            step *= count
        return bucket


def unit(q: Float[Tensor, "*rows K"]) -> Float[Tensor, "*rows K"]:
    """Returns the keys of queries: of length 1, whatever the length of the query."""
    wide = q.to(torch.promote_types(q.dtype, torch.float32))
    return (wide * (wide.square().mean(-1, keepdim=True) + EPS).rsqrt() * q.shape[-1] ** -0.5).to(q.dtype)


def flops(tokens: int, *, key_width: int, value_width: int, rounds: int, chunk: int, before: int) -> int:
    """Returns the operations of the matrix products of `attend` for one head of one row."""
    return 2 * rounds * tokens * (before + 1) * chunk * (key_width + value_width)


def _of_rounds(size: Float[Tensor, "R *some"], out: Float[Tensor, "R *some L"]) -> Float[Tensor, "*some L"]:
    """Returns the sum of what the rounds give, each by its share of the whole."""
    return (size.softmax(0)[..., None].to(out.dtype) * out).sum(0)


def _pick(x: Float[Tensor, "B H T K"], place: Int[Tensor, "B H S"]) -> Float[Tensor, "B H S K"]:
    return x.gather(2, place[..., None].expand(-1, -1, -1, x.shape[3]))


def _with_those_before(x: Tensor, before: int) -> Tensor:
    """Returns (B, H, N, W, ...) of (B, H, N, C, ...): each chunk after those before it, the last before the first."""
    return torch.cat([x.roll(i, 2) for i in range(before, 0, -1)] + [x], 3)
