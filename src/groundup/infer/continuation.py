"""Text of new tokens as they come: nothing that a later token could change, and no part of a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from groundup.errors import GenerationError
from groundup.infer.generation import Generation
from groundup.infer.ids import several
from groundup.text.stream import StreamDecoder
from groundup.text.tokenizer import Tokenizer

LOOK_BACK = 16  # how many tokens of the prompt are decoded with the first new ones


class Continuation:
    """Turns the new tokens after a prompt into pieces of text that can be shown at once.

    The end of the prompt is decoded along, because many tokenizers write a space before a word only where another
    token stands before it. Special tokens are not shown.

    Attributes:
        stopped: whether a stop string has come; it and what follows are never shown.
    """

    def __init__(self, tokenizer: Tokenizer, *, after: Sequence[int], stop: Sequence[str] = ()) -> None:
        self._decoder = StreamDecoder(tokenizer, hide_special=True)
        self._stop = stop
        self._held = ""
        self.stopped = False
        context = after[-LOOK_BACK:]
        shown = sum(len(self._decoder.push(id)) for id in context)
        self._of_prompt = len(tokenizer.decode(context, hide_special=True)) - shown

    def follow(self, row: Generation) -> str:
        """Returns the text that the newest token of a row makes certain, often one word, sometimes nothing.

        The row's text grows by it, and at a stop string the row is finished. Once the row is finished, what was held
        back is part of the piece.
        """
        piece = "" if row.finish == "end" else self._release(self._decoder.push(row.ids[-1]))
        if row.finish is not None:
            piece += self._release(self._decoder.flush()) + self._held
        if self.stopped:
            row.finish = "stop"
        row.text += piece
        return piece

    def _release(self, text: str) -> str:
        skipped = min(self._of_prompt, len(text))
        self._of_prompt -= skipped
        text = self._held + text[skipped:]
        found = [at for at in map(text.find, self._stop) if at >= 0]
        if self.stopped or found:
            self.stopped, self._held = True, ""
            return text[: min(found)] if found else ""
        sure = _certain(text, self._stop)
        self._held = text[sure:]
        return text[:sure]


def _certain(text: str, stop: Sequence[str]) -> int:
    """Returns how many characters of a text cannot be the beginning of a stop string."""
    longest = max(map(len, stop), default=1) - 1
    starts = range(max(0, len(text) - longest), len(text))
    return next((at for at in starts if any(one.startswith(text[at:]) for one in stop)), len(text))


def stop_tokens(stop: str | Sequence[str], tokenizer: Tokenizer | None) -> tuple[set[int], list[str]]:
    """Returns the tokens and the texts of stop strings.

    Special tokens are never part of the text, so one that is named as a stop string stops as a token.

    Raises:
        GenerationError: a stop string is empty or no text.
    """
    stop = [stop] if isinstance(stop, str) else several(stop, expected="a text or a list of texts to stop at")
    strange = [one for one in stop if not isinstance(one, str)]
    if strange:
        raise GenerationError(f"the stop string {strange[0]!r} is no text; give a text or a list of texts")
    if "" in stop:
        raise GenerationError("a stop string is empty, which would end every text at once; leave it out")
    special = {} if tokenizer is None else tokenizer.special
    ends = {special[text] for text in stop if text in special}
    return ends, [text for text in stop if text not in special]
