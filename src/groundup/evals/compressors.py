"""What general compressors need for the same text: the yardstick that everybody has installed."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable, Iterable, Sequence

from groundup.data.corpus import TokenDocument
from groundup.evals.perplexity import Score
from groundup.text.tokenizer import Tokenizer

MOST_BYTES = 8 * 2**20  # of a text: xz takes a second a megabyte
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


def beside(score: Score, documents: Iterable[TokenDocument], tokenizer: Tokenizer) -> dict[str, float]:
    """Returns what the compressors need for the text that a model was scored on, in bits per byte.

    Nothing where the text was not predicted as a whole, is longer than `MOST_BYTES`, or does not come back from its
    tokens as it was.

    Args:
        score: of the documents.
        documents: what was read.
        tokenizer: made their ids.
    """
    if score.text_bytes is None or score.text_bytes > MOST_BYTES:
        return {}
    texts = [tokenizer.decode(document.ids[:-1]).encode() for document in documents]
    return bits_per_byte(texts) if sum(map(len, texts)) == score.text_bytes else {}
