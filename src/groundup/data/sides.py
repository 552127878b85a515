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
    """

    def __init__(self, *, fraction: float, seed: int) -> None:
        self.done_bytes = 0
        self.kept_bytes = 0
        self.duplicates = 0
        self._fraction = fraction
        self._seed = seed

    def sort(self, documents: Iterable[Document]) -> Iterator[Sided]:
        """Yields each document that is no duplicate, with its side.

        Raises:
            DataError: there is no document, nothing is left for ``train``, or the one document is too short to be cut.
        """
        known, trained, settled = Duplicates(), False, self._fraction == 0
        lowest: tuple[float, Document] | None = None
        for document in documents:
            text = document.text.encode()
            self.done_bytes += len(text)
            key = digest(text)
            if known.seen(key):
                self.duplicates += 1
                continue
            self.kept_bytes += len(text)
            if held_out(key, fraction=self._fraction, seed=self._seed):
                settled = True
                yield _sided(VALID, document)
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
            yield _sided(TRAIN, document)
        if lowest is not None:
            yield from self._last(lowest[1], settled=settled, trained=trained)
        elif not self.kept_bytes:
            raise DataError("there is no document to build a corpus from; give at least one")
        elif not trained:
            raise DataError(
                f"every document fell into the held-out part; choose held_out below {self._fraction} or give more text"
            )

    def _last(self, document: Document, *, settled: bool, trained: bool) -> Iterator[Sided]:
        if settled:
            yield _sided(TRAIN, document)
            return
        whole = _sided(VALID, document)
        wanted_bytes = self._fraction * self.kept_bytes
        if trained and whole.text_bytes <= max(2 * wanted_bytes, SHORT_BYTES):
            yield whole
        else:
            yield from _cut(document, wanted_bytes / whole.text_bytes)


def _sided(side: str, document: Document) -> Sided:
    return Sided(side=side, name=document.name, text=document.text, text_bytes=len(document.text.encode()))


def _cut(document: Document, fraction: float) -> Iterator[Sided]:
    """The beginning and the end of a document, cut after a line if it has one there."""
    place = int(len(document.text) * (1 - fraction))
    place = document.text.rfind("\n", 0, place) + 1 or place
    head, tail = document.text[:place], document.text[place:]
    if not (head.strip() and tail.strip()):
        raise DataError(f"{document.name} is too short to hold {fraction:.0%} of it out; give more text, or held_out=0")
    yield _sided(TRAIN, Document(name=document.name, text=head))
    yield _sided(VALID, Document(name=f"{document.name}#end", text=tail))
