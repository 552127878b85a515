"""How tokenizers compare on a text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from groundup.data.sources import documents
from groundup.text.tokenizer import Tokenizer


def compare(source: str, paths: Iterable[str]) -> list[dict[str, Any]]:
    """Returns, for each tokenizer, the tokens that it needs for a source, fewest first.

    Raises:
        DataError: the source cannot be read.
        TextError: a tokenizer cannot be read.
    """
    loaded = {path: Tokenizer.load(path) for path in paths}
    tokens = dict.fromkeys(loaded, 0)
    text_bytes = 0
    for document in documents(source):
        text_bytes += len(document.text.encode())
        for path, tokenizer in loaded.items():
            tokens[path] += len(tokenizer.encode(document.text))
    rows = [
        {
            "tokenizer": path,
            "vocab": loaded[path].vocab,
            "tokens": count,
            "text_bytes": text_bytes,
            "bytes_per_token": text_bytes / max(count, 1),
        }
        for path, count in tokens.items()
    ]
    return sorted(rows, key=lambda row: row["tokens"])
