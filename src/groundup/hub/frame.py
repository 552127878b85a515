"""The ids that a Hugging Face folder names: where texts begin and end, and what fills up rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.hub.spec_file import BESIDE, THEIRS, read_mapping


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


def read_frame(folder: Path) -> Frame:
    """Returns what the files of a folder say; of two that do, generation_config.json has the last word.

    Raises:
        ModelError: one of them is not JSON.
    """
    said: dict[str, Any] = {}
    for file in (THEIRS, BESIDE):
        if (folder / file).is_file():
            said |= {name: value for name, value in read_mapping(folder / file).items() if value is not None}
    begin, pad = (next(_ids(said.get(name)), None) for name in ("bos_token_id", "pad_token_id"))
    return Frame(begin=begin, ends=tuple(_ids(said.get("eos_token_id"))), pad=pad)


def _ids(said: Any) -> Iterator[int]:
    """Yields the ids of one or several; what is no id, as the -1 of some files, says that there is none."""
    for value in said if isinstance(said, list) else [said]:
        if type(value) is int and value >= 0:
            yield value
