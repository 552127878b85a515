from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from groundup.errors import StorageError, TextError
from groundup.text.tokenizer import Tokenizer
from groundup.text.train import END, train

TEXTS = ["def add(a, b):\n    return a + b\n", "the cat sat on the mat and the dog sat on the log\n" * 3]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train(TEXTS, vocab=270)


def llama_like(folder: Path) -> Path:
    """A folder as Hugging Face writes it, with a tokenizer that puts its begin token before a text."""
    names = ["<s>", "</s>", "<|eot|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Backend(models.BPE(vocab={name: id for id, name in enumerate(names)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(name, special=True) for name in names[:3]])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    backend.enable_truncation(4)
    folder.mkdir(exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    return folder


def write(path: Path, data: object) -> None:
    path.write_text(json.dumps(data))


def test_a_text_comes_back_exactly(tokenizer: Tokenizer) -> None:
    text = "naïve 漢字 \N{ROCKET}\r\n\t  tabs and   blanks \0 end"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_batch_gives_the_ids_of_each_text(tokenizer: Tokenizer) -> None:
    texts = ["one", "", "two and three"]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


def test_the_name_of_a_special_token_in_a_text_is_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(f"a{END}b")
    assert tokenizer.end not in ids
    assert tokenizer.decode(ids) == f"a{END}b"
    assert tokenizer.encode_batch([f"a{END}b"]) == [ids]


def test_markup_reads_the_names_of_special_tokens(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(f"a{END}b", markup=True)
    assert ids == [*tokenizer.encode("a"), tokenizer.end, *tokenizer.encode("b")]
    assert tokenizer.decode(ids, hide_special=True) == "ab"
    assert tokenizer.end not in tokenizer.encode(END)


def test_vocab_is_one_more_than_the_largest_id(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab == 270
    assert tokenizer.name_of(269)
    assert tokenizer.name_of(0) == END
    assert tokenizer.special == {END: 0}
    assert tokenizer.is_special(0) and not tokenizer.is_special(1)


@pytest.mark.parametrize("id", [-1, 270])
def test_an_id_outside_the_vocabulary_is_refused(tokenizer: Tokenizer, id: int) -> None:
    with pytest.raises(TextError, match=f"token id {id} is outside the vocabulary; expected 0 to 269"):
        tokenizer.decode([1, id])
    with pytest.raises(TextError, match="outside the vocabulary"):
        tokenizer.name_of(id)


def test_half_a_surrogate_pair_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(TextError, match="half a surrogate pair at character 2"):
        tokenizer.encode("ab\ud800")
    with pytest.raises(TextError, match="half a surrogate pair at character 1"):
        tokenizer.encode_batch(["fine", "a\udfff"])


def test_saved_and_loaded_is_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    chatty = Tokenizer(tokenizer.definition, end=0, begin=0, chat_template="{{ messages }}\r\n")
    for place in (tmp_path / "new" / "folder", tmp_path / "other"):
        chatty.save(place)
        chatty = Tokenizer.load(place)
    assert (chatty.begin, chatty.end, chatty.chat_template) == (0, 0, "{{ messages }}\r\n")
    assert chatty.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])
    names = {path.name for path in (tmp_path / "other").iterdir()}
    assert names == {"tokenizer.json", "contract.json", "chat_template.jinja", "tokenizer_config.json"}


def test_the_file_and_its_folder_are_the_same_tokenizer(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path / "tokenizer.json").contract() == Tokenizer.load(tmp_path).contract()
    shutil.copy(tmp_path / "tokenizer.json", tmp_path / "mine.json")
    assert Tokenizer.load(tmp_path / "mine.json").end == 0


def test_the_folder_of_a_run_has_its_tokenizer_inside(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    assert Tokenizer.load(tmp_path).encode("a text") == tokenizer.encode("a text")


def test_saving_without_a_template_removes_the_old_one(tokenizer: Tokenizer, tmp_path: Path) -> None:
    Tokenizer(tokenizer.definition, end=0, chat_template="old").save(tmp_path)
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path).chat_template is None


def test_the_fingerprint_tells_vocabularies_apart_but_not_templates(tokenizer: Tokenizer) -> None:
    assert Tokenizer(tokenizer.definition, end=0, chat_template="x").fingerprint == tokenizer.fingerprint
    assert train(TEXTS, vocab=269).fingerprint != tokenizer.fingerprint
    assert train(TEXTS, vocab=270).fingerprint == tokenizer.fingerprint
    assert Tokenizer(tokenizer.definition, end=None).fingerprint != tokenizer.fingerprint


def test_the_contract_says_what_changed(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    definition = json.loads(path.read_text())
    definition["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": "."}
    write(path, definition)
    with pytest.raises(TextError, match=r"contract.json beside it describes: normaliser changed"):
        Tokenizer.load(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("new")
    train(TEXTS, vocab=260)
    write(path, json.loads(train(TEXTS, vocab=260).definition))
    with pytest.raises(TextError, match=r"describes: vocab \(270 to 260\), vocabulary, template changed"):
        Tokenizer.load(tmp_path)


def test_a_limit_in_the_file_does_not_cut_texts(tmp_path: Path) -> None:
    loaded = Tokenizer.load(llama_like(tmp_path))
    assert loaded.decode(loaded.encode("longer than four")) == "longer than four"
    assert [len(ids) for ids in loaded.encode_batch(["longer than four", "a"])] == [16, 1]


def test_framed_adds_what_the_tokenizer_puts_around_a_text(tmp_path: Path) -> None:
    loaded = Tokenizer.load(llama_like(tmp_path))
    assert loaded.encode("ab", framed=True) == [0, *loaded.encode("ab")]


def test_without_other_files_the_usual_names_are_begin_and_end(tmp_path: Path) -> None:
    loaded = Tokenizer.load(llama_like(tmp_path))
    assert (loaded.begin, loaded.end) == (0, 1)


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("tokenizer_config.json", {"bos_token": "<s>", "eos_token": {"content": "<|eot|>"}}, (0, 2)),
        ("tokenizer_config.json", {"bos_token": None, "eos_token": "<|eot|>"}, (None, 2)),
        ("special_tokens_map.json", {"eos_token": "<|eot|>"}, (0, 2)),
        ("generation_config.json", {"bos_token_id": 1, "eos_token_id": [2, 1]}, (1, 2)),
        ("config.json", {"eos_token_id": 2, "bos_token_id": 999_999}, (0, 2)),
    ],
)
def test_hugging_face_files_name_begin_and_end(
    tmp_path: Path, name: str, data: object, expected: tuple[int | None, int]
) -> None:
    write(llama_like(tmp_path) / name, data)
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.begin, loaded.end) == expected


def test_the_template_is_read_from_either_place(tmp_path: Path) -> None:
    llama_like(tmp_path)
    named = [{"name": "tools", "template": "no"}, {"name": "default", "template": "yes"}]
    for template, expected in (("plain", "plain"), (named, "yes"), (None, None)):
        write(tmp_path / "tokenizer_config.json", {"chat_template": template})
        assert Tokenizer.load(tmp_path).chat_template == expected
    (tmp_path / "chat_template.jinja").write_text("first")
    assert Tokenizer.load(tmp_path).chat_template == "first"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"[]", 'has no "model"'),
        (b'{"model": {"type": "Unheard"}}', "cannot be built"),
        (b"\xff\xfe{}", "is not UTF-8 at byte 0"),
    ],
)
def test_a_broken_tokenizer_is_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(TextError, match=message) as caught:
        Tokenizer.load(tmp_path)
    assert str(tmp_path / "tokenizer.json") in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_broken_files_beside_it_are_named(tmp_path: Path, content: str) -> None:
    (llama_like(tmp_path) / "tokenizer_config.json").write_text(content)
    with pytest.raises(TextError, match=r"tokenizer_config\.json"):
        Tokenizer.load(tmp_path)


def test_a_missing_tokenizer_names_what_is_near(tmp_path: Path) -> None:
    (tmp_path / "tokenizers").mkdir()
    with pytest.raises(TextError, match="does not exist; did you mean 'tokenizers'"):
        Tokenizer.load(tmp_path / "tokenizer")
    with pytest.raises(TextError, match=r"holds no tokenizer\.json; give the folder"):
        Tokenizer.load(tmp_path / "tokenizers")
    (tmp_path / "tokenizers" / "vocab.json").touch()
    with pytest.raises(TextError, match=r"it has vocab\.json, which is another format"):
        Tokenizer.load(tmp_path / "tokenizers")


def test_a_place_that_is_a_file_cannot_be_saved_to(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="a part of its path is a file"):
        tokenizer.save(tmp_path / "file" / "tokenizer")


@pytest.mark.slow
def test_a_folder_written_by_transformers_is_read(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    backend = Backend.from_file(str(llama_like(tmp_path / "source") / "tokenizer.json"))
    backend.no_truncation()
    theirs = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="<|eot|>")
    theirs.chat_template = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"
    theirs.save_pretrained(tmp_path / "theirs")
    ours = Tokenizer.load(tmp_path / "theirs")
    assert (ours.begin, ours.end) == (theirs.bos_token_id, theirs.eos_token_id) == (0, 2)
    text = "na\N{LATIN SMALL LETTER I WITH DIAERESIS}ve  text\n\tand more"
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False)
    assert ours.encode(text, framed=True) == theirs.encode(text)
    hello = [{"role": "user", "content": "Hi"}]
    assert ours.encode(ours.chat(hello), markup=True) == theirs.apply_chat_template(hello, return_dict=False)
    assert len(theirs) == ours.vocab
