from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from groundup.errors import TextError
from groundup.text.stream import StreamDecoder
from groundup.text.tokenizer import Tokenizer
from groundup.text.train import train

TEXT = "the cat and the dog; naïve 漢字 and \N{ROCKET}\N{ROCKET} the end\n" * 3


def sentencepiece_like() -> Tokenizer:
    """As Llama 2 has it: a sign for the space, bytes for what it does not know, the first space taken off."""
    words = ["▁", "▁the", "▁cat", "the", "é", "a", "b", "▁a", "\N{REPLACEMENT CHARACTER}"]
    names = ["<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    backend = Backend(models.BPE({n: i for i, n in enumerate(names)}, [], byte_fallback=True, unk_token="<s>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(["<s>", "</s>"])
    return Tokenizer(backend.to_str(), begin=0, end=1)


def pieces_like(decoder: decoders.Decoder, names: list[str]) -> Tokenizer:
    backend = Backend(models.WordLevel({name: id for id, name in enumerate(names)}, unk_token=names[0]))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(" "), behavior="removed")
    backend.decoder = decoder
    backend.add_special_tokens([names[0]])
    return Tokenizer(backend.to_str())


TOKENIZERS = {
    "bpe": train([TEXT], vocab=280),
    "char": train([TEXT], kind="char"),
    "word": train([TEXT], kind="word"),
    "sentencepiece": sentencepiece_like(),
    "metaspace": pieces_like(decoders.Metaspace(), ["<s>", "▁the", "▁", "cat", "▁▁x", "é"]),
    "wordpiece": pieces_like(decoders.WordPiece(), ["[CLS]", "the", "##s", ".", "n", "'", "##é", ","]),
    "suffix": pieces_like(decoders.BPEDecoder(), ["<s>", "the</w>", "c", "at</w>", "é</w>"]),
}


def streamed(tokenizer: Tokenizer, ids: list[int], *, hide_special: bool = False) -> list[str]:
    decoder = StreamDecoder(tokenizer, hide_special=hide_special)
    return [*(decoder.push(id) for id in ids), decoder.flush()]


@pytest.mark.parametrize("name", TOKENIZERS)
@given(data=st.data(), hide_special=st.booleans())
def test_the_pieces_of_any_ids_are_the_whole(name: str, data: st.DataObject, hide_special: bool) -> None:
    tokenizer = TOKENIZERS[name]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab - 1), max_size=30))
    pieces = streamed(tokenizer, ids, hide_special=hide_special)
    assert "".join(pieces) == tokenizer.decode(ids, hide_special=hide_special)


@pytest.mark.parametrize("name", ["bpe", "char", "sentencepiece"])
@given(text=st.text())
def test_the_pieces_of_any_text_are_the_text(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(text)
    assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids)


@given(text=st.text(alphabet="aé漢\N{ROCKET}\n "))
@pytest.mark.parametrize("name", ["bpe", "char"])
def test_no_character_is_ever_split(name: str, text: str) -> None:
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(streamed(TOKENIZERS[name], TOKENIZERS[name].encode(text)))


def test_a_character_appears_with_its_last_byte() -> None:
    tokenizer = TOKENIZERS["char"]
    ids = [*tokenizer.encode("a"), *tokenizer.encode("€"), *tokenizer.encode("b")]
    assert streamed(tokenizer, ids) == ["a", "", "", "€", "b", ""]


def test_words_appear_at_once() -> None:
    tokenizer = TOKENIZERS["sentencepiece"]
    ids = [tokenizer._plain.get_vocab()[name] for name in ("▁the", "▁cat", "a")]
    assert streamed(tokenizer, ids) == ["the", " cat", "a", ""]


def test_flush_shows_unfinished_bytes_and_starts_anew() -> None:
    tokenizer = TOKENIZERS["char"]
    decoder = StreamDecoder(tokenizer)
    assert decoder.push(tokenizer.encode("€")[0]) == ""
    assert decoder.flush() == "\N{REPLACEMENT CHARACTER}"
    assert decoder.push(tokenizer.encode("a")[0]) == "a"
    assert decoder.flush() == ""


def test_an_id_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(TextError, match="outside the vocabulary"):
        StreamDecoder(TOKENIZERS["char"]).push(100_000)
