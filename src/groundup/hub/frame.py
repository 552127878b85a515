"""The ids that a Hugging Face folder names: where texts begin and end, and what fills up rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.hub.spec_file import read_tokens


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Ids with a meaning for whoever writes or reads texts.

    Attributes:
        begin: stands before each text; None where nobody says.
        ends: each of them ends a text; empty where nobody says.
        pad: fills up rows; None where nobody says.
    """

    begin: int | None = None
    ends: tuple[int, ...] = ()
    pad: int | None = None

    def named(self) -> dict[str, Any]:
        """Returns what is known by the names of config.json, where several ends are a list."""
        ends = self.ends[0] if len(self.ends) == 1 else list(self.ends) or None
        every = {"bos_token_id": self.begin, "eos_token_id": ends, "pad_token_id": self.pad}
        return {name: value for name, value in every.items() if value is not None}


NO_FRAME = Frame()


def read_frame(folder: Path, *, vocab: int) -> Frame:
    """Returns what the files of a folder say of a model with so many token ids.

    Raises:
        ModelError: one of them cannot be read as JSON, or holds anything but a mapping.
    """
    said = read_tokens(folder)
    begin, ends, pad = (list(_ids(said.get(f"{name}_token_id"), vocab)) for name in ("bos", "eos", "pad"))
    return Frame(begin=next(iter(begin), None), ends=tuple(ends), pad=next(iter(pad), None))


def _ids(said: Any, vocab: int) -> Iterator[int]:
    """Yields the ids of one or several; one that the model lacks, as the -1 of some files, says that there is none."""
    for value in said if isinstance(said, list) else [said]:
        if type(value) is int and 0 <= value < vocab:
            yield value
