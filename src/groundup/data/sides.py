"""Which document goes where: duplicates out, the held-out ones to ``valid``, the others to ``train``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from groundup.data.clean import Duplicates, digest, draw, held_out
from groundup.data.sources import Document
from groundup.errors import DataError

TRAIN, VALID = "train", "valid"
SHORT_BYTES = 256  # a document that is held out whole rather than cut


@dataclass(frozen=True, kw_only=True)
class Sided:
    """A document with its side of the split and its length in UTF-8."""

    side: str
    name: str
    text: str
    text_bytes: int


class Sides:
    """Sorts documents as they come, and counts what it saw.

    A document is held out by its own digest (see `clean.held_out`). Few documents may all fall to ``train``; then the
    one whose draw is lowest is held out, or its end, if all of it would be far more than was asked for. Only this one
    document waits in memory.

    Attributes:
        done_bytes: the bytes of text read so far.
        kept_bytes: these, without those of duplicates.
        duplicates: how many documents were left out because their text came before.
        pairs: whether the documents are pairs; None before the first.
    """

    def __init__(self, *, fraction: float, seed: int) -> None:
        self.done_bytes = 0
        self.kept_bytes = 0
        self.duplicates = 0
        self.pairs: bool | None = None
        self._fraction = fraction
        self._seed = seed

    def sort(self, documents: Iterable[Document]) -> Iterator[Sided]:
        """Yields each document that is no duplicate, with its side.

        Raises:
            DataError: there is no document, nothing is left for ``train``, the one document is too short to be cut, or
                some are pairs and others are not.
        """
        known, trained, settled = Duplicates(), False, self._fraction == 0
        lowest: tuple[float, Document] | None = None
        for document in documents:
            self._note(document)
            text = "\0".join(document.texts).encode()  # a text has no NUL
            self.done_bytes += len(text)
            key = digest(text)
            if known.seen(key):
                self.duplicates += 1
                continue
            self.kept_bytes += len(text)
            if held_out(key, fraction=self._fraction, seed=self._seed):
                settled = True
                yield from _sided(VALID, document)
                continue
            if not settled:
                # The lower of the two goes on waiting.
                here = (draw(key, seed=self._seed), document)
                waiting, lowest = lowest, here
                if waiting is None:
                    continue
                if waiting[0] < here[0]:
                    waiting, lowest = here, waiting
                document = waiting[1]
            trained = True
            yield from _sided(TRAIN, document)
        if lowest is not None:
            yield from self._last(lowest[1], settled=settled, trained=trained)
        elif not self.kept_bytes:
            raise DataError("there is no document to build a corpus from; give at least one")
        elif not trained:
            raise DataError(
                f"every document fell into the held-out part; choose held_out below {self._fraction} or give more text"
            )

    def _note(self, document: Document) -> None:
        pair = document.target is not None
        if self.pairs not in (None, pair):
            here, before = ("a pair", "single texts") if pair else ("a single text", "pairs")
            raise DataError(f"{document.name} is {here}, and those before it are {before}; build a corpus of either")
        self.pairs = pair

    def _last(self, document: Document, *, settled: bool, trained: bool) -> Iterator[Sided]:
        if settled:
            yield from _sided(TRAIN, document)
            return
        text_bytes = sum(len(text.encode()) for text in document.texts)
        wanted_bytes = self._fraction * self.kept_bytes
        if trained and (document.target is not None or text_bytes <= max(2 * wanted_bytes, SHORT_BYTES)):
            yield from _sided(VALID, document)
        else:
            yield from _cut(document, wanted_bytes / text_bytes)


def _sided(side: str, document: Document) -> Iterator[Sided]:
    """A document, or the two of a pair."""
    for text in document.texts:
        yield Sided(side=side, name=document.name, text=text, text_bytes=len(text.encode()))


def _cut(document: Document, fraction: float) -> Iterator[Sided]:
    """The beginning and the end of a document, cut after a line if it has one there."""
    if document.target is not None:
        raise DataError(f"{document.name} is the only pair, so none can be held out; give more, or held_out=0")
    place = int(len(document.text) * (1 - fraction))
    place = document.text.rfind("\n", 0, place) + 1 or place
    head, tail = document.text[:place], document.text[place:]
    if not (head.strip() and tail.strip()):
        raise DataError(f"{document.name} is too short to hold {fraction:.0%} of it out; give more text, or held_out=0")
    yield from _sided(TRAIN, Document(name=document.name, text=head))
    yield from _sided(VALID, Document(name=f"{document.name}#end", text=tail))
