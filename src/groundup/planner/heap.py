"""glibc's heap, replayed: how far a sequence of allocations makes it grow, gaps included.

It follows malloc of glibc 2.36 for one thread, with PyTorch's settings of `groundup.training.allocator`: blocks come
from the heap alone, which never shrinks. What decides where gaps arise is here:

    best fit        the smallest free chunk that is large enough; what is left of it goes to the unsorted ones, which
                    are taken for an equal size, and sorted otherwise
    merging         a chunk that is freed is joined with free neighbours, but not with what lies in tcache (7 chunks of
                    each size up to 1,040 bytes) or in fastbins (up to 128 bytes, joined when 64 KiB were freed)
    alignment       PyTorch asks for multiples of 64: malloc takes 96 bytes more and frees what is before and after

Source: glibc, malloc/malloc.c of release 2.36.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict

LEAST, GRAIN, ALIGNED = 32, 16, 64  # bytes: MINSIZE, MALLOC_ALIGNMENT, c10's gAlignment
FAST, CACHED, SMALL = 128, 1040, 1024  # the largest of the fastbins and of tcache; from which on chunks are large
CACHED_COUNT = 7  # TCACHE_FILL_COUNT
CONSOLIDATING = 65536  # FASTBIN_CONSOLIDATION_THRESHOLD
PAGE, TOP_PAD = 4096, 131072


class Heap:
    """A heap that begins empty.

    Attributes:
        grown_bytes: what the system gave.
    """

    def __init__(self) -> None:
        self.grown_bytes = 0
        self._top = 0  # where what was never used begins
        self._used: dict[int, int] = {}  # the size of each chunk in use, by address
        self._free: dict[int, int] = {}  # of each free one
        self._ends: dict[int, int] = {}  # the address of each free one, by its end
        self._unsorted: dict[int, None] = {}  # the oldest first
        self._small: dict[int, dict[int, None]] = defaultdict(dict)  # by size, the oldest first
        self._large: list[tuple[int, int]] = []  # (size, address), ascending
        self._cache: dict[int, list[int]] = defaultdict(list)
        self._fast: dict[int, list[int]] = defaultdict(list)
        self._remainder = -1  # what was last left of a small chunk

    def allocate(self, size: int) -> int:
        """Returns the address of a new block of so many bytes."""
        size = _chunk(size)
        if size <= CACHED and self._cache[size]:
            at = self._cache[size].pop()
        else:
            at, size = self._take(size)
        self._used[at] = size
        return at

    def allocate_aligned(self, size: int) -> int:
        """Returns the address of a new block at a multiple of 64, as PyTorch asks for it."""
        wanted = _chunk(size)
        at, size = self._take(_chunk(wanted + ALIGNED + LEAST))
        lead = -(at + GRAIN) % ALIGNED
        if lead:
            lead += ALIGNED if lead < LEAST else 0
            self._give(at, lead)
            at, size = at + lead, size - lead
        if size > wanted + LEAST:
            self._give(at + wanted, size - wanted)
            size = wanted
        self._used[at] = size
        return at

    def free(self, at: int) -> None:
        """Frees the block at an address."""
        self._give(at, self._used.pop(at))

    def _give(self, at: int, size: int) -> None:
        if size <= CACHED and len(self._cache[size]) < CACHED_COUNT:
            self._cache[size].append(at)
        elif size <= FAST:
            self._fast[size].append(at)
        elif self._merge(at, size) >= CONSOLIDATING:
            self._consolidate()

    def _merge(self, at: int, size: int) -> int:
        """Frees a chunk, joined with its free neighbours; returns the size of both."""
        before = self._ends.get(at)
        if before is not None:
            size += self._unlink(before)
            at = before
        if at + size == self._top:
            self._top = at
            return size
        if at + size in self._free:
            size += self._unlink(at + size)
        self._leave(at, size)
        return size

    def _consolidate(self) -> None:
        if not self._fast:
            return
        chunks = [(at, size) for size in sorted(self._fast) for at in reversed(self._fast[size])]
        self._fast.clear()
        for at, size in chunks:
            self._merge(at, size)

    def _take(self, size: int) -> tuple[int, int]:
        """Returns the address and the size of a chunk of at least this size."""
        if size <= FAST and size in self._fast:
            at = self._fast[size].pop()
            if not self._fast[size]:
                del self._fast[size]
            return at, size
        if size < SMALL and self._small[size]:
            return self._pop_small(size), size
        if size >= SMALL:
            self._consolidate()
        while True:
            at = self._sort_until(size)
            if at is not None:
                return at, size
            if (found := self._best(size)) is not None:
                return found
            if self.grown_bytes - self._top >= size + LEAST or not self._fast:
                return self._from_top(size), size
            self._consolidate()

    def _sort_until(self, size: int) -> int | None:
        """Sorts the unsorted chunks, the oldest first, until one has this very size; returns that."""
        cached = False
        while self._unsorted:
            at = next(iter(self._unsorted))
            if size < SMALL and at == self._remainder and len(self._unsorted) == 1 and self._free[at] > size + LEAST:
                left = self._unlink(at) - size
                self._leave(at + size, left)
                self._remainder = at + size
                return at
            found = self._unlink(at)
            if found != size:
                self._sort(at, found)
            elif size <= CACHED and len(self._cache[size]) < CACHED_COUNT:
                self._cache[size].append(at)
                cached = True
            else:
                return at
        return self._cache[size].pop() if cached else None

    def _best(self, size: int) -> tuple[int, int] | None:
        """Returns the smallest sorted chunk that has this size, cut to it; None where none has."""
        fitting = [] if size >= SMALL else [one for one, chunks in self._small.items() if one >= size and chunks]
        if fitting:
            found = min(fitting)
            return self._cut(self._pop_small(found), found, size)
        place = bisect_left(self._large, (size, 0))
        if place == len(self._large):
            return None
        found, at = self._large[place]
        return self._cut(at, self._unlink(at), size)

    def _cut(self, at: int, size: int, wanted: int) -> tuple[int, int]:
        if size - wanted < LEAST:
            return at, size
        self._leave(at + wanted, size - wanted)
        if wanted < SMALL:
            self._remainder = at + wanted
        return at, wanted

    def _from_top(self, size: int) -> int:
        if self.grown_bytes - self._top < size + LEAST:
            more = size + TOP_PAD + LEAST - (self.grown_bytes - self._top)
            self.grown_bytes += -(-more // PAGE) * PAGE
        at, self._top = self._top, self._top + size
        return at

    def _pop_small(self, size: int) -> int:
        at = next(iter(self._small[size]))
        self._unlink(at)
        return at

    def _leave(self, at: int, size: int) -> None:
        """Puts a free chunk among the unsorted."""
        self._free[at], self._ends[at + size] = size, at
        self._unsorted[at] = None

    def _sort(self, at: int, size: int) -> None:
        self._free[at], self._ends[at + size] = size, at
        if size < SMALL:
            self._small[size][at] = None
        else:
            insort(self._large, (size, at))

    def _unlink(self, at: int) -> int:
        """Takes a free chunk out of its list; returns its size."""
        size = self._free.pop(at)
        del self._ends[at + size]
        if at in self._unsorted:
            del self._unsorted[at]
        elif size < SMALL:
            del self._small[size][at]
        else:
            del self._large[bisect_left(self._large, (size, at))]
        return size


def _chunk(size: int) -> int:
    """Returns the bytes that a block takes: its own, eight for its size, in multiples of 16."""
    return max(LEAST, -(-(size + 8) // GRAIN) * GRAIN)
