from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers

from groundup.errors import GenerationError
from groundup.infer.continuation import Continuation, stop_tokens
from groundup.infer.generation import Finish, Generation
from groundup.text.tokenizer import Tokenizer
from groundup.text.train import END, train

TEXT = "the cat and the dog; naïve 漢字 the end\n" * 3


NAMES = ["<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁the", "▁cat", "the", "a"]


def sentencepiece_like() -> Tokenizer:
    """As Llama 2 has it: a sign for the space, bytes for what it does not know, the first space taken off."""
    backend = Backend(models.BPE({n: i for i, n in enumerate(NAMES)}, [], byte_fallback=True, unk_token="<s>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(["<s>", "</s>"])
    return Tokenizer(backend.to_str(), begin=0, end=1)


CHARS, PIECES = train([TEXT], kind="char"), sentencepiece_like()
TOKENIZERS = {"char": CHARS, "bpe": train([TEXT], vocab=280), "sentencepiece": PIECES}
every_tokenizer = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)


def follow(
    tokenizer: Tokenizer, ids: list[int], *, prompt: list[int], stop: tuple[str, ...] = (), last: Finish = "length"
) -> tuple[Generation, list[str]]:
    """What the ids of a finished row become, piece by piece; the row ends where a stop string comes."""
    row, pieces = Generation(prompt_ids=prompt), []
    continuation = Continuation(tokenizer, after=prompt, stop=stop)
    for i, id in enumerate(ids, start=1):
        row.ids.append(id)
        row.finish = last if i == len(ids) else None
        pieces.append(continuation.follow(row))
        if continuation.stopped:
            break
    return row, pieces


def cut(text: str, stop: tuple[str, ...]) -> str:
    return text[: min([at for at in map(text.find, stop) if at >= 0], default=None)]


@every_tokenizer
@given(data=st.data())
def test_text_after_a_prompt_is_the_rest_of_the_whole(tokenizer, data):
    some = st.lists(st.integers(0, tokenizer.vocab - 1), min_size=1, max_size=10)
    whole = tokenizer.encode(data.draw(st.text("the cat漢é\n", min_size=1, max_size=14)))
    prompt, ids = whole[:-1] or whole, data.draw(some)
    row, pieces = follow(tokenizer, ids, prompt=prompt)
    before, after = (tokenizer.decode(part, hide_special=True) for part in (prompt, prompt + ids))
    if after.startswith(before):  # not where the prompt ends within a character
        assert row.text == after[len(before) :]
    assert "".join(pieces) == row.text


@given(
    text=st.text("ab\N{ROCKET}", min_size=1, max_size=12),
    stop=st.lists(st.text("ab\N{ROCKET}", min_size=1, max_size=4), max_size=2).map(tuple),
)
def test_text_ends_before_the_first_stop_string_and_none_of_it_is_shown(text, stop):
    row, pieces = follow(CHARS, CHARS.encode(text), prompt=CHARS.encode("x"), stop=stop)
    shown = cut(text, stop)
    if row.finish == "stop":
        # With several, the one that is complete first ends the text.
        firsts = [text.find(one) + len(one) for one in stop if one in text]
        assert row.text == cut(text[: min(firsts)], stop)
    else:
        assert row.text == shown == text
    assert "".join(pieces) == row.text


def test_pieces_wait_for_what_may_become_a_stop_string():
    ids = CHARS.encode("one\nUs Use\nUser: two")
    row, pieces = follow(CHARS, ids, prompt=[1], stop=("\nUser:",))
    assert row.text == "one\nUs Use"
    assert row.finish == "stop"
    assert pieces[:8] == ["o", "n", "e", "", "", "", "\nUs ", "U"]
    row, pieces = follow(CHARS, CHARS.encode("one\nUse"), prompt=[1], stop=("\nUser:",))
    assert (row.text, row.finish, pieces[-1]) == ("one\nUse", "length", "\nUse")


def test_stop_string_is_found_across_tokens_and_within_one():
    bpe = TOKENIZERS["bpe"]
    ids = bpe.encode("the cat and the dog")
    for stop in ("e c", " and the", "d"):
        row, _ = follow(bpe, ids, prompt=[1], stop=(stop,))
        assert (row.text, row.finish) == (cut("the cat and the dog", (stop,)), "stop")


def test_characters_of_several_tokens_are_never_split():
    ids = train(["x"], kind="char").encode("é漢")
    row, pieces = follow(train(["x"], kind="char"), ids, prompt=[1])
    assert pieces == ["", "é", "", "", "漢"]
    assert row.text == "é漢"


def test_first_word_keeps_its_space_after_a_prompt():
    the, cat, newline = (NAMES.index(name) for name in ("▁the", "▁cat", "<0x0A>"))
    assert follow(PIECES, [cat, the], prompt=[0, the])[0].text == " cat the"
    assert follow(PIECES, [cat], prompt=[0])[0].text == "cat"
    # A newline is a byte here, which waits for the bytes after it: it belongs to the prompt nevertheless.
    assert follow(PIECES, [cat], prompt=[0, the, newline])[0].text == " cat"


def test_end_token_and_special_tokens_are_not_shown():
    ids = [*CHARS.encode("ab"), CHARS.special[END]]
    assert follow(CHARS, ids, prompt=[1], last="end")[0].text == "ab"
    assert follow(CHARS, [CHARS.special[END], *CHARS.encode("c")], prompt=[1])[0].text == "c"


def test_stop_string_that_is_a_special_token_stops_as_a_token():
    assert stop_tokens(["</s>", "\n", "<s>"], PIECES) == ({0, 1}, ["\n"])
    assert stop_tokens([], PIECES) == (set(), [])
    assert stop_tokens([], None) == (set(), [])


def test_empty_stop_string_is_refused():
    with pytest.raises(GenerationError, match="a stop string is empty"):
        stop_tokens(["a", ""], CHARS)
