"""What attention remembers: keys and values, all of them or those of a window.

Both states write in place into tensors of a fixed shape and return what to attend over, with the place of every key;
a place of -1 holds nothing. Letters: B rows, T new tokens, G key/value heads, S slots, K width of a head's keys, L of
its values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.context import Context
from groundup.state import State

Keys = Float[Tensor, "B G T K"]
Values = Float[Tensor, "B G T L"]


@dataclass
class KVState(State):
    """All keys and values, each in the slot of its place."""

    k: Float[Tensor, "B G S K"]
    v: Float[Tensor, "B G S L"]

    def append(self, k: Keys, v: Values, ctx: Context) -> tuple[Tensor, Tensor, Int[Tensor, "B S"]]:
        """Writes new keys and values and returns all that may be seen, with their places.

        Padding is written beyond the row's end, where no query of the row looks before a real token replaces it.
        """
        row = ctx.once("row", lambda: torch.arange(k.shape[0], device=k.device)[:, None])
        for kept, new in ((self.k, k), (self.v, v)):
            kept.transpose(1, 2).index_put_((row, ctx.positions), new.transpose(1, 2).to(kept.dtype))
        reach = ctx.reach
        places = ctx.once("places", lambda: torch.arange(reach, device=k.device).expand(k.shape[0], reach))
        return self.k[:, :, :reach], self.v[:, :, :reach], places

    def rewind(self, length: Tensor) -> None:
        """Forgets by doing nothing: places from ``length`` on are written again before they are seen."""


@dataclass
class WindowState(State):
    """The last S keys and values in a ring: place p is in slot p mod S."""

    k: Float[Tensor, "B G S K"]
    v: Float[Tensor, "B G S L"]

    @property
    def rewinds(self) -> bool:
        """False: what a window has let go cannot come back."""
        return False

    def append(self, k: Keys, v: Values, ctx: Context) -> tuple[Tensor, Tensor, Int[Tensor, "B S"]]:
        """Writes new keys and values and returns all that may be seen, with their places."""
        assert ctx.seen is not None  # a context with states says what they have seen
        seen, tokens = ctx.seen, k.shape[2]
        before = self._places(seen)
        lengths = torch.full_like(seen, tokens) if ctx.lengths is None else ctx.lengths
        if tokens == 1:
            self._write(k, v, seen, lengths)
            # A row whose one token is padding is not written: that query sees an old key in its own place, and no
            # query sees none at all.
            return self.k, self.v, self._places(seen + 1)
        # Several queries: the first of them still see what the last of them will overwrite.
        all_k = torch.cat([self.k, k.to(self.k.dtype)], 2)
        all_v = torch.cat([self.v, v.to(self.v.dtype)], 2)
        self._write(k, v, seen, lengths)
        return all_k, all_v, torch.cat([before, ctx.positions], 1)

    def _places(self, seen: Int[Tensor, "B"]) -> Int[Tensor, "B S"]:
        size = self.k.shape[2]
        last = seen[:, None] - 1
        place = last - (last - torch.arange(size, device=seen.device)) % size
        return torch.where(place >= 0, place, -1)

    def _write(self, k: Keys, v: Values, seen: Int[Tensor, "B"], lengths: Int[Tensor, "B"]) -> None:
        """Writes the last real tokens of each row, as many as there are slots: no two of them share one."""
        size, tokens = self.k.shape[2], k.shape[2]
        kept = min(size, tokens)
        index = (lengths - kept).clamp(min=0)[:, None] + torch.arange(kept, device=k.device)  # (B, kept)
        real = (index < lengths[:, None])[:, None, :, None]
        slots = ((seen[:, None] + index) % size)[:, None, :, None].expand(-1, k.shape[1], -1, k.shape[3])
        pick = index.clamp(max=tokens - 1)[:, None, :, None].expand_as(slots)
        for ring, new in ((self.k, k), (self.v, v)):
            value = torch.where(real, new.gather(2, pick).to(ring.dtype), ring.gather(2, slots))
            ring.scatter_(2, slots, value)
