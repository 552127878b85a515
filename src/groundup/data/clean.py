r"""Cleaning: one form for equal texts, duplicates out, and which documents are held out.

Normalising changes only what is not text: a byte order mark, and ``\r\n`` line ends. Unicode is left as it is. NFC
would change what string literals of source code mean and how long a text is, so bits per byte would be measured on
another text than the user's, and a model would never learn to write what NFC removes.
"""

from __future__ import annotations

import hashlib

from groundup.errors import DataError

_BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"


def normalise(text: str) -> str:
    r"""Returns the text without a byte order mark and with ``\n`` as line end.

    Raises:
        DataError: the text holds a NUL, so it is not text.
    """
    place = text.find("\0")
    if place >= 0:
        raise DataError(f"there is a NUL at character {place}, so this looks like a binary file; expected text")
    return text.removeprefix(_BOM).replace("\r\n", "\n")


def digest(text: bytes) -> bytes:
    """Returns 16 bytes that stand for a text in UTF-8: equal texts have equal digests, others differ (BLAKE2b)."""
    return hashlib.blake2b(text, digest_size=16).digest()


def draw(digest: bytes, *, seed: int = 0) -> float:
    """Returns the place of a document in the order of being held out: a fixed draw from 0 to 1."""
    mixed = hashlib.blake2b(digest, digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(mixed, "little") / 2**64


def held_out(digest: bytes, *, fraction: float, seed: int = 0) -> bool:
    """Whether a document belongs to the held-out split.

    It depends on the document's own digest alone, so documents added later, or another order, move none of those
    already there, and equal texts never lie on both sides.
    """
    return draw(digest, seed=seed) < fraction


class Duplicates:
    """Tells which documents were seen before, by their digests: about 100 bytes of memory each, of any length."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def seen(self, digest: bytes) -> bool:
        """Whether this digest was asked for before; the next time it was."""
        known = digest in self._seen
        self._seen.add(digest)
        return known
