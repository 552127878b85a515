"""What an encoder-decoder that learnt span corruption writes for the sentinels of a text, put in their places.

    source   Thank you <extra_id_0> me to your party <extra_id_1> week </s>
    written  <extra_id_0> for inviting <extra_id_1> last </s>

Source: Raffel et al. 2020 (T5, arXiv:1910.10683), section 3.1.4.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from groundup.errors import GenerationError
from groundup.text.tokenizer import Tokenizer

SENTINEL = "<extra_id_"


def sentinels(tokenizer: Tokenizer) -> dict[int, str]:
    """Returns the ids of the tokenizer's sentinels with their names."""
    return {id: name for name, id in tokenizer.special.items() if name.startswith(SENTINEL)}


def check_sentinels(ids: Sequence[int], marks: Collection[int]) -> None:
    """Makes sure that there is something to fill in.

    Raises:
        GenerationError: there is no sentinel in the text.
    """
    if not any(id in marks for id in ids):
        raise GenerationError(f"nothing is left out of the text; write {SENTINEL}0>, {SENTINEL}1>, ... in its gaps")


def spans(written: Sequence[int], marks: Collection[int]) -> dict[int, list[int]]:
    """Returns the tokens that follow each sentinel, up to the next; the first time counts."""
    found: dict[int, list[int]] = {}
    now: list[int] = []
    for id in written:
        if id in marks:
            now = []
            found.setdefault(id, now)
        else:
            now.append(id)
    return found


def filled(ids: Sequence[int], written: Sequence[int], marks: Collection[int]) -> list[int]:
    """Returns a text with what was written in the places of its sentinels; nothing where nothing was."""
    known = spans(written, marks)
    return [back for id in ids for back in (known.get(id, []) if id in marks else [id])]
