from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.errors import TextError
from groundup.text.tokenizer import Tokenizer
from groundup.text.train import END, UNKNOWN, train

CODE = '''class Shape:
    """A shape."""

    def area(self) -> float:
        if self.width > 0:
            return self.width * self.height
        return 12345.678
'''
PROSE = "It was the best of times, it was the worst of times; naïve façades, 漢字.\n" * 4
TEXTS = [CODE, PROSE, ""]
MADE = {kind: train(TEXTS, kind=kind, vocab=vocab) for kind, vocab in (("bpe", 320), ("char", None), ("word", None))}


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.decode([id]) for id in tokenizer.encode(text)]


@pytest.mark.parametrize("kind", MADE)
def test_the_texts_come_back_exactly(kind: str) -> None:
    for text in TEXTS:
        assert MADE[kind].decode(MADE[kind].encode(text)) == text


@given(text=st.text())
@pytest.mark.parametrize("kind", ["bpe", "char"])
def test_any_text_comes_back_exactly(kind: str, text: str) -> None:
    assert MADE[kind].decode(MADE[kind].encode(text)) == text


@pytest.mark.parametrize("kind", MADE)
def test_the_end_token_is_the_first(kind: str) -> None:
    assert MADE[kind].end == 0
    assert MADE[kind].name_of(0) == END


@pytest.mark.parametrize(("kind", "vocab"), [("bpe", 275), ("char", 259), ("char", None), ("word", 10)])
def test_the_same_texts_make_the_same_tokenizer(kind: str, vocab: int | None) -> None:
    words = ["one", "two", "three", "four", "five", "ä", "漢", "eins", "zwei"]
    texts = [" ".join(random.Random(seed).choices(words, k=50)) for seed in range(40)]
    first, second = (train(iter(texts), kind=kind, vocab=vocab) for _ in range(2))
    assert first.fingerprint == second.fingerprint


def test_bpe_learns_a_frequent_word_as_one_token() -> None:
    assert pieces(MADE["bpe"], " times times") == [" times", " times"]


def test_bpe_keeps_a_line_end_with_the_indentation_after_it() -> None:
    tokenizer = train(["if x:\n        y = 1\n        z = 2\n" * 9], vocab=265)
    assert pieces(tokenizer, "a:\n        b\n\n") == ["a", ":\n        ", "b", "\n", "\n"]


def test_bpe_cuts_numbers_into_three_digits_at_most() -> None:
    tokenizer = train(["1234567890 " * 50], vocab=262)
    assert max(len(piece.strip()) for piece in pieces(tokenizer, "123456789012")) <= 3


def test_characters_are_one_token_each_and_unknown_ones_their_bytes() -> None:
    assert pieces(MADE["char"], "aï漢\n") == ["a", "ï", "漢", "\n"]
    assert len(MADE["char"].encode("\N{ROCKET}")) == 4


def test_a_character_vocabulary_keeps_the_most_frequent() -> None:
    tokenizer = train(["ééé漢漢\N{ROCKET}"], kind="char", vocab=259)
    assert [len(tokenizer.encode(c)) for c in "é漢\N{ROCKET}"] == [1, 1, 4]


def test_an_unknown_word_is_one_unknown_token() -> None:
    tokenizer = MADE["word"]
    assert pieces(tokenizer, "It was") == ["It", " was"]
    assert tokenizer.decode(tokenizer.encode("It zebra was")) == f"It{UNKNOWN} was"


def test_a_word_vocabulary_keeps_the_most_frequent() -> None:
    tokenizer = train(["b a b a b c"], kind="word", vocab=4)
    assert [tokenizer.name_of(id) for id in range(4)] == [END, UNKNOWN, "Ġa", "Ġb"]


@pytest.mark.parametrize(
    ("kind", "text", "largest"), [("bpe", "abab", 258), ("char", "aé", 258), ("word", "one two one", 5)]
)
def test_a_vocabulary_larger_than_the_data_allows_names_the_largest(kind: str, text: str, largest: int) -> None:
    with pytest.raises(
        TextError, match=f"vocab=999 is more than these texts allow: the largest possible is {largest};"
    ):
        train([text], kind=kind, vocab=999)
    assert train([text], kind=kind, vocab=largest).vocab == largest


@pytest.mark.parametrize(("kind", "vocab"), [("bpe", 256), ("char", 1), ("word", 2), ("bpe", -1)])
def test_a_vocabulary_that_is_too_small_is_refused(kind: str, vocab: int) -> None:
    with pytest.raises(TextError, match=f"vocab={vocab} is too small"):
        train(TEXTS, kind=kind, vocab=vocab)


def test_a_vocabulary_beyond_all_use_is_refused_before_anything_is_counted() -> None:
    with pytest.raises(TextError, match="vocab=99999999999 is more than a tokenizer may have"):
        train(TEXTS, vocab=99999999999)


def test_bpe_without_a_size_is_refused() -> None:
    with pytest.raises(TextError, match="needs the size of its vocabulary"):
        train(TEXTS)


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
@pytest.mark.parametrize("kind", MADE)
def test_no_text_is_refused(kind: str, texts: list[str]) -> None:
    with pytest.raises(TextError, match="there is no text to train a tokenizer on"):
        train(texts, kind=kind, vocab=300)


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(TextError, match="half a surrogate pair at character 1"):
        train(["fine", "a\ud800"], vocab=300)


def test_one_text_instead_of_several_is_refused() -> None:
    with pytest.raises(TextError, match="expected several texts, not one str"):
        train("text", vocab=300)


def test_an_error_of_the_source_passes_through() -> None:
    def broken() -> Iterator[str]:
        yield "text"
        raise TextError("mine")

    with pytest.raises(TextError, match="mine"):
        train(broken(), vocab=300)
