"""Streaming decode: text as the ids arrive, never half a character.

The text of the ids pushed so far is given out as far as no later id can change it. Decoders look back one token at
most (a first token loses its leading space), so a short window of ids is decoded instead of all of them: the ids
that gave the last text out, then the new ones. What waits is a character whose bytes are not all there, and a run
of byte tokens (``<0xE2>``), of which one bad byte spoils the whole run.
"""

from __future__ import annotations

import re

from groundup.text.tokenizer import Tokenizer

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class StreamDecoder:
    """Turns ids into text one by one; all pieces together are ``tokenizer.decode`` of all ids."""

    def __init__(self, tokenizer: Tokenizer, *, hide_special: bool = False) -> None:
        self._tokenizer = tokenizer
        self._hide_special = hide_special
        self._shown: list[int] = []  # the ids of the last piece given out: the left context of the next
        self._waiting: list[int] = []

    def push(self, id: int) -> str:
        """Returns the text that is certain now and was not before; often one word, sometimes nothing.

        Raises:
            TextError: an id outside the vocabulary.
        """
        name = self._tokenizer.name_of(id)
        if self._hide_special and self._tokenizer.is_special(id):
            return ""
        self._waiting.append(id)
        if _BYTE.fullmatch(name):
            return ""
        new = self._new_text()
        return "" if new.endswith(_UNFINISHED) else self._give_out(new)

    def flush(self) -> str:
        """Returns what still waits, with U+FFFD for bytes that never became a character, and starts anew."""
        new = self._new_text()
        self._shown, self._waiting = [], []
        return new

    def _new_text(self) -> str:
        before = self._tokenizer.decode(self._shown)
        return self._tokenizer.decode(self._shown + self._waiting)[len(before) :]

    def _give_out(self, new: str) -> str:
        if new:
            self._shown, self._waiting = self._waiting, []
        return new
