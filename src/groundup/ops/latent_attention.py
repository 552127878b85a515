"""Softmax attention whose keys and values are made of one narrow vector of each token, the latent.

    k_s = [K c_s, r_s];   v_s = V c_s;   y_t = sum_s softmax_s(scale q_t . k_s + bias_ts) v_s
    q . [K c, r] = [K' q_1, q_2] . [c, r];   sum_s w_s V c_s = V sum_s w_s c_s

K and V are each head's own, c and r are for all heads. By the second line no key and no value need be made: queries
and outputs absorb the maps, and all heads attend to the latents themselves. Source: DeepSeek-AI 2024 (DeepSeek-V2,
arXiv:2405.04434), sections 2.1.2 and 2.1.3. Letters: B rows, T queries, S keys, H heads, K the width of what a latent
gives to a key, R that of the rest of it, L that of a value, C that of a latent, Q = K + R, U = K + L.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from groundup.ops import attention


def reference(
    q: Float[Tensor, "B H T Q"],
    latent: Float[Tensor, "B S C"],
    rest: Float[Tensor, "B S R"],
    up: Float[Tensor, "H U C"],
    *,
    allowed: Bool[Tensor, "#B 1 T S"] | None,
    causal: bool,
    scale: float,
    bias: Float[Tensor, "#B #H #T S"] | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "B H T L"]:
    """Returns the attention of every query over the keys and values of its head: the definition.

    Args:
        q: queries.
        latent: of each key.
        rest: what all heads have in a key besides.
        up: the map of latents to keys of each head, and below it that to values.
        allowed: as `groundup.ops.attention.reference` takes it, like all that follows.
        causal: whether, without ``allowed``, a query sees only the keys up to its own place.
        scale: what scores are multiplied by.
        bias: what is added to the scores.
        dropout: the chance of each attention weight to be dropped.
    """
    k, v = _keys_and_values(q, latent, rest, up)
    return attention.reference(q, k, v, allowed=allowed, causal=causal, scale=scale, bias=bias, dropout=dropout)


def attend(
    q: Float[Tensor, "B H T Q"],
    latent: Float[Tensor, "B S C"],
    rest: Float[Tensor, "B S R"],
    up: Float[Tensor, "H U C"],
    *,
    allowed: Bool[Tensor, "#B 1 T S"] | None,
    causal: bool,
    scale: float,
    bias: Float[Tensor, "#B #H #T S"] | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "B H T L"]:
    """Returns what `reference` does, by whichever of both lines takes fewer products: the second while decoding."""
    settings = {"allowed": allowed, "causal": causal, "scale": scale, "bias": bias, "dropout": dropout}
    widths = {"latent": latent.shape[2], "rest": rest.shape[2], "up": up.shape[1]}
    made, absorbed = products(q.shape[2], latent.shape[1], **widths)
    if made <= absorbed:
        k, v = _keys_and_values(q, latent, rest, up)
        return attention.attend(q, k, v, **settings)
    to_keys, to_values = up.split(_widths(q, rest, up), 1)
    first, second = q.split([to_keys.shape[1], rest.shape[2]], -1)
    q = torch.cat([torch.einsum("bhtk,hkc->bhtc", first, to_keys), second], -1)
    k, v = torch.cat([latent, rest], -1)[:, None], latent[:, None]
    return torch.einsum("bhtc,hlc->bhtl", attention.attend(q, k, v, **settings), to_values)


def products(queries: int, keys: int, *, latent: int, rest: int, up: int) -> tuple[int, int]:
    """Returns the products of numbers for each head, with keys and values made and with their maps absorbed.

    Args:
        queries: T.
        keys: S.
        latent: C.
        rest: R.
        up: U.
    """
    return queries * keys * (up + rest) + keys * up * latent, queries * (keys * (2 * latent + rest) + up * latent)


def _keys_and_values(q: Tensor, latent: Tensor, rest: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """The keys (B, H, S, Q) and values (B, H, S, L) of all heads."""
    k, v = torch.einsum("bsc,huc->bhsu", latent, up).split(_widths(q, rest, up), -1)
    return torch.cat([k, rest[:, None].expand(-1, up.shape[0], -1, -1)], -1), v


def _widths(q: Tensor, rest: Tensor, up: Tensor) -> list[int]:
    """K and L."""
    to_keys = q.shape[-1] - rest.shape[-1]
    return [to_keys, up.shape[1] - to_keys]
