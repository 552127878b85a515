"""What general compressors need for the same text: the yardstick that everybody has installed."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable, Sequence

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip -9": lambda text: gzip.compress(text, 9, mtime=0),
    "bzip2 -9": lambda text: bz2.compress(text, 9),
    "xz -9": lambda text: lzma.compress(text, preset=9),
}


def bits_per_byte(texts: Sequence[bytes]) -> dict[str, float]:
    """Returns the bits per byte of each compressor over all texts as one stream, and of xz over each text alone."""
    stream = b"".join(texts)
    total = max(len(stream), 1)
    sizes = {f"{name}, one stream": len(squeeze(stream)) for name, squeeze in COMPRESSORS.items()}
    sizes["xz -9, each file"] = sum(len(COMPRESSORS["xz -9"](text)) for text in texts)
    return {name: 8 * size / total for name, size in sizes.items()}
