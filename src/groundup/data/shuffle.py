"""A shuffled order that needs no memory: any place of it is computed alone.

A Feistel network is a permutation of the numbers of an even count of bits, whatever its round function is; with
four rounds of a good mixer it looks random (Luby and Rackoff 1988). A number that falls outside the wanted size is
put through again until it falls inside, which keeps it a permutation (cycle walking: Black and Rogaway 2002). The
mixer is SplitMix64's finaliser (Steele et al. 2014, constants from its section 5).
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 4


def shuffled(index: NDArray[np.int64], *, size: int, key: tuple[int, ...]) -> NDArray[np.int64]:
    """Returns where each index goes in a shuffled order of 0 to size - 1; another key, another order."""
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    keys = _round_keys(key)
    place = _feistel(index.astype(np.uint64), half, keys)
    while (outside := place >= size).any():
        place[outside] = _feistel(place[outside], half, keys)
    return place.astype(np.int64)


def _round_keys(key: tuple[int, ...]) -> NDArray[np.uint64]:
    raw = hashlib.blake2b(repr(key).encode(), digest_size=8 * _ROUNDS).digest()
    return np.frombuffer(raw, dtype="<u8").astype(np.uint64)


def _feistel(number: NDArray[np.uint64], half: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = number >> bits, number & mask
    for key in keys:
        left, right = right, left ^ (_mixed(right + key) & mask)
    return (left << bits) | right


def _mixed(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
