from __future__ import annotations

import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.data.clean import Duplicates, digest, held_out, normalise
from groundup.data.sides import Sided, Sides
from groundup.data.sources import Document
from groundup.errors import DataError

TEXTS = st.lists(st.text(alphabet="ab \n", min_size=1).filter(str.strip), min_size=1, max_size=20)


def sort(texts: list[str], *, fraction: float = 0.3, seed: int = 0) -> list[Sided]:
    sides = Sides(fraction=fraction, seed=seed)
    return list(sides.sort(Document(name=str(i), text=text) for i, text in enumerate(texts)))


def by_side(found: list[Sided]) -> dict[str, set[str]]:
    return {side: {d.text for d in found if d.side == side} for side in ("train", "valid")}


def many(count: int) -> list[str]:
    return [f"document {i}" for i in range(count)]


def test_marks_and_line_ends_are_all_that_changes() -> None:
    assert normalise("\ufeffone\r\ntwo\rthree\n") == "one\ntwo\rthree\n"
    assert normalise("in\ufeffside") == "in\ufeffside"


def test_composed_and_decomposed_letters_stay_apart() -> None:
    decomposed = unicodedata.normalize("NFD", "é")
    assert normalise(decomposed) == decomposed != "é"


def test_a_nul_is_refused() -> None:
    with pytest.raises(DataError, match="NUL at character 2"):
        normalise("ab\0c")


@given(text=st.text().filter(lambda text: "\0" not in text))
def test_normalising_keeps_all_other_text(text: str) -> None:
    assert normalise(text) == text.removeprefix("\ufeff").replace("\r\n", "\n")


def test_duplicates_are_seen_from_the_second_time_on() -> None:
    known = Duplicates()
    assert [known.seen(digest(text)) for text in (b"a", b"b", b"a", b"a")] == [False, False, True, True]
    assert len(digest(b"a")) == 16


def test_the_held_out_share_is_near_the_fraction() -> None:
    share = sum(held_out(digest(text.encode()), fraction=0.1) for text in many(5000)) / 5000
    assert 0.08 < share < 0.12


def test_another_seed_holds_out_others() -> None:
    digests = [digest(text.encode()) for text in many(200)]
    chosen = [{d for d in digests if held_out(d, fraction=0.2, seed=seed)} for seed in (0, 1)]
    assert chosen[0] != chosen[1]


def test_a_larger_fraction_holds_out_the_same_and_more() -> None:
    digests = [digest(text.encode()) for text in many(200)]
    few, more = ({d for d in digests if held_out(d, fraction=f)} for f in (0.1, 0.2))
    assert few < more


def test_adding_documents_moves_none() -> None:
    before, after = by_side(sort(many(100))), by_side(sort(["new", *reversed(many(200))]))
    assert before["valid"] < after["valid"]
    assert before["train"] < after["train"]


@given(texts=TEXTS, fraction=st.sampled_from([0.0, 0.1, 0.5]), seed=st.integers(0, 3))
def test_each_text_goes_to_one_side_once(texts: list[str], fraction: float, seed: int) -> None:
    try:
        found = sort(texts, fraction=fraction, seed=seed)
    except DataError:
        assert len(set(texts)) == 1 or by_side(sort(texts, fraction=0.0))["valid"] == set()
        return
    if len(set(texts)) > 1 or not fraction:
        assert Counter(d.text for d in found) == Counter(set(texts))
    assert bool(by_side(found)["valid"]) == bool(fraction)
    assert by_side(found)["train"]


def test_duplicates_are_counted_and_dropped() -> None:
    sides = Sides(fraction=0, seed=0)
    found = list(sides.sort(Document(name=name, text="same") for name in "abc"))
    assert [d.name for d in found] == ["a"]
    assert (sides.duplicates, sides.done_bytes) == (2, 12)


def test_of_few_documents_one_is_held_out_whatever_their_order() -> None:
    texts = many(5)
    sides = [by_side(sort(order, fraction=0.0001)) for order in (texts, texts[::-1], texts[2:] + texts[:2])]
    assert len(sides[0]["valid"]) == 1
    assert sides[0] == sides[1] == sides[2]


def test_of_few_long_documents_no_more_is_held_out_than_was_asked_for() -> None:
    texts: list[str] = ["a line of a book\n" * 1000, "and of another\n" * 1200]
    found = sort(texts, fraction=0.05, seed=1)
    held_out_bytes = sum(d.text_bytes for d in found if d.side == "valid")
    assert 0.04 < held_out_bytes / sum(d.text_bytes for d in found) < 0.06
    assert sorted(d.name for d in found) in (["0", "0#end", "1"], ["0", "1", "1#end"])


def test_of_a_single_document_the_end_is_held_out() -> None:
    text = "".join(f"line {i}\n" for i in range(100))
    train, valid = sort([text], fraction=0.1)
    assert train.text + valid.text == text
    assert train.text.endswith("\n")
    assert 0.08 < len(valid.text) / len(text) < 0.14
    assert (train.side, train.name, valid.side, valid.name) == ("train", "0", "valid", "0#end")


def test_a_single_document_without_lines_is_cut_at_a_character() -> None:
    train, valid = sort(["é" * 10], fraction=0.25)
    assert (train.text_bytes, valid.text_bytes) == (14, 6)


def test_a_document_too_short_to_cut_is_refused() -> None:
    with pytest.raises(DataError, match="0 is too short to hold 10% of it out; give more text, or held_out=0"):
        sort(["a"], fraction=0.1)


@pytest.mark.parametrize("fraction", [0.0, 0.5])
def test_no_document_at_all_is_refused(fraction: float) -> None:
    with pytest.raises(DataError, match="there is no document to build a corpus from"):
        sort([], fraction=fraction)


def test_nothing_left_to_train_on_is_refused() -> None:
    with pytest.raises(DataError, match="every document fell into the held-out part"):
        sort(many(2), fraction=0.9999)
