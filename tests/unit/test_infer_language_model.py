from __future__ import annotations

import copy
import json

import pytest
import torch

from groundup.errors import ConfigError, GenerationError, ModelError, StorageError, TextError
from groundup.families.gpt2 import gpt2
from groundup.families.llama import llama
from groundup.hub.manifest import verify
from groundup.infer.language_model import LanguageModel
from groundup.infer.load import load
from groundup.text.tokenizer import Tokenizer
from groundup.text.train import END, train

TEXT = "the cat and the dog; naïve 漢字 the end\n" * 3
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)
CHARS = train([TEXT], kind="char")
SPEC = llama(
    width=32, layers=2, heads=4, kv_heads=2, hidden=64, vocab=CHARS.vocab + 5, context=64, tied=True, deviation=0.4
)
MODULE = SPEC.build(seed=1).eval()
BARE = LanguageModel(MODULE)


@pytest.fixture
def model() -> LanguageModel:
    return LanguageModel(MODULE, tokenizer=CHARS)


def variant(**changes: object) -> Tokenizer:
    """The tokenizer of these tests with another begin, end or chat template."""
    tokenizer = copy.copy(CHARS)
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    return tokenizer


def test_call_gives_the_logits_of_ids_in_any_form(model):
    ids = [[1, 2, 3], [4, 5, 6]]
    logits = model(ids)
    assert (logits.shape, logits.dtype) == ((2, 3, SPEC.vocab), torch.float32)
    assert torch.equal(model(torch.tensor(ids)), logits)
    assert torch.equal(MODULE.logits(model.hidden(ids)), logits)
    assert model.hidden(ids).shape == (2, 3, SPEC.width)
    assert not logits.requires_grad


def test_call_on_ids_that_the_model_does_not_know_is_refused(model):
    for call in (model, model.hidden):
        with pytest.raises(GenerationError, match=f"token id {SPEC.vocab} is outside"):
            call([[0, SPEC.vocab]])
        with pytest.raises(GenerationError, match="the rows are 65 tokens long and the model's context 64"):
            call([[1] * 65])


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.2, "top_p": 0.9, "seed": 3}])
def test_stream_joins_to_the_generated_text(model, sampling):
    text = model.generate("the cat", max_new_tokens=30, **sampling)
    pieces = list(model.stream("the cat", max_new_tokens=30, **sampling))
    assert "".join(pieces) == text
    assert len(pieces) > 3
    assert all(pieces)


def test_prompts_side_by_side_give_what_each_gives_alone(model):
    prompts = ["the cat", "漢", "", "and the dog"]
    sampling = {"temperature": 1.0, "max_new_tokens": 20}
    assert model.generate(prompts, **sampling) == [model.generate(prompt, **sampling) for prompt in prompts]
    assert model.generate([]) == []


def test_more_prompts_than_fit_side_by_side_are_taken_in_turns(model, monkeypatch):
    prompts = ["a", "bc", "d", "ef", "g"]
    together = model.generate(prompts, max_new_tokens=5)
    monkeypatch.setattr("groundup.infer.language_model.ROWS", 2)
    assert model.generate(prompts, max_new_tokens=5) == together


def test_text_of_a_row_is_what_its_ids_say(model):
    made = model.generations(["the", [5, 6, 7]], max_new_tokens=9, temperature=1.0, seeds=[1, 2], logprobs=True)
    assert [one.prompt_ids for one in made] == [CHARS.encode("the"), [5, 6, 7]]
    for one in made:
        assert one.text == CHARS.decode(one.ids, hide_special=True)
        assert (len(one.ids), len(one.logprobs), one.finish) == (9, 9, "length")
        assert max(one.ids) < CHARS.vocab
    assert model.generate_ids(CHARS.encode("the"), max_new_tokens=9, temperature=1.0, seed=1) == made[0].ids


def test_stop_string_ends_text_and_stream_alike(model):
    free = model.generate("the cat", max_new_tokens=40, temperature=1.0)
    stop = free[10:13]
    expected = free[: free.find(stop)]
    one = model.generations(["the cat"], max_new_tokens=40, temperature=1.0, stop=stop)[0]
    assert (one.text, one.finish) == (expected, "stop")
    assert len(one.ids) < 40
    assert "".join(model.stream("the cat", max_new_tokens=40, temperature=1.0, stop=["\0\0", stop])) == expected


def test_end_token_ends_the_text(model):
    # At this temperature every token comes up, the end token among them.
    made = model.generations(["a"] * 8, max_new_tokens=50, temperature=40.0, top_k=20, seeds=range(8))
    ended = [one for one in made if one.finish == "end"]
    assert ended
    for one in ended:
        assert one.ids.index(CHARS.special[END]) == len(one.ids) - 1
        assert END not in one.text
    named = LanguageModel(MODULE, tokenizer=variant(end=None)).generations(
        ["a"] * 8, max_new_tokens=50, temperature=40.0, top_k=20, seeds=range(8), stop=END
    )
    assert [one.ids for one in named] == [one.ids for one in made]


def test_empty_prompt_starts_from_the_begin_or_the_end_token(model):
    assert model.prompt_ids("") == [CHARS.end]
    begun = variant(begin=7)
    assert LanguageModel(MODULE, tokenizer=begun).prompt_ids("") == [7]
    with pytest.raises(GenerationError, match="the prompt is empty and the tokenizer has no begin or end token"):
        LanguageModel(MODULE, tokenizer=variant(end=None)).generate("")


def test_prompt_longer_than_the_context_is_refused_with_both_lengths(model):
    with pytest.raises(GenerationError, match="the prompt is 70 tokens long and the model's context 64"):
        model.generate("a" * 70)
    assert model.generations(["a" * 60], max_new_tokens=20)[0].finish == "context"


def test_unknown_setting_is_refused_with_the_nearest(model):
    with pytest.raises(ConfigError, match="did you mean 'temperature'"):
        model.generate("a", temprature=1.0)
    with pytest.raises(GenerationError, match="there are 1 seeds for 2 prompts"):
        model.generations(["a", "b"], seeds=[1])


def test_model_without_a_tokenizer_works_on_ids_and_says_what_is_missing():
    assert len(BARE.generate_ids([1, 2], max_new_tokens=5)) == 5
    assert "no tokenizer" in repr(BARE)
    for ask in (
        lambda: BARE.generate("a"),
        lambda: list(BARE.stream([1, 2])),
        lambda: BARE.generations([[1, 2]], stop="x"),
        lambda: BARE.chat([{"role": "user", "content": "a"}]),
    ):
        with pytest.raises(TextError, match="has no tokenizer, so it takes and gives token ids alone"):
            ask()


def test_chat_answers_in_the_words_of_the_template():
    tokenizer = variant(chat_template=TEMPLATE)
    model = LanguageModel(MODULE, tokenizer=tokenizer)
    messages = [{"role": "u", "content": "the cat"}]
    answer = model.chat(messages, max_new_tokens=12)
    assert answer == model.generate("<u>the cat<a>", max_new_tokens=12)
    assert "".join(model.stream_chat(messages, max_new_tokens=12)) == answer


def test_chat_without_a_template_says_so(model):
    with pytest.raises(TextError, match="has no chat template"):
        model.chat([{"role": "user", "content": "a"}])


def test_saved_model_is_loaded_as_it_was(model, tmp_path):
    model.save(tmp_path / "new" / "model")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["model"]
    verify(tmp_path / "new" / "model")
    again = load(str(tmp_path / "new" / "model"), device="cpu")
    assert again.spec == SPEC
    assert not again.module.training
    assert torch.equal(again([[1, 2, 3]]), model([[1, 2, 3]]))
    assert again.generate("the", max_new_tokens=9) == model.generate("the", max_new_tokens=9)


def test_model_without_a_tokenizer_is_saved_without_one(tmp_path):
    BARE.save(tmp_path / "bare")
    assert load(tmp_path / "bare", dtype="bf16", device="cpu").tokenizer is None
    assert load(tmp_path / "bare", dtype="bf16", device="cpu").module.embed.weight.dtype == torch.bfloat16


def test_save_replaces_a_model_only_by_force_and_nothing_else_at_all(model, tmp_path):
    (tmp_path / "empty").mkdir()
    model.save(tmp_path / "empty")
    with pytest.raises(StorageError, match="holds a model already; choose a new folder, or give force=True"):
        BARE.save(tmp_path / "empty")
    assert load(tmp_path / "empty").tokenizer is not None
    BARE.save(tmp_path / "empty", force=True)
    assert load(tmp_path / "empty").tokenizer is None
    (tmp_path / "empty" / "diary.txt").write_text("dear diary")
    for force in (False, True):
        with pytest.raises(StorageError, match=r"holds diary.txt, which is no part of a model"):
            model.save(tmp_path / "empty", force=force)
    with pytest.raises(StorageError, match="is a file"):
        model.save(tmp_path / "empty" / "diary.txt", force=True)
    assert (tmp_path / "empty" / "diary.txt").read_text() == "dear diary"
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_huggingface_folder_is_loaded(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    theirs = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=32, vocab_size=CHARS.vocab)).eval()
    theirs.save_pretrained(tmp_path)
    CHARS.save(tmp_path)
    model = load(tmp_path, device="cpu")
    prompt = model.prompt_ids("the cat")
    expected = list(prompt)
    for _ in range(10):
        expected.append(int(theirs(torch.tensor([expected])).logits[0, -1].argmax()))
    assert prompt + model.generate_ids(prompt, max_new_tokens=10) == expected


def test_model_without_weights_is_refused_with_the_ways_to_get_them(tmp_path):
    with pytest.raises(ModelError, match="no weights yet; train it, or give a checkpoint"):
        load("gpt2")
    (tmp_path / "spec.json").write_text(json.dumps(SPEC.to_dict()))
    with pytest.raises(ModelError, match="no weights yet"):
        load(str(tmp_path / "spec.json"))


def test_unknown_dtype_and_device_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="dtype 'bf61' does not exist; did you mean 'bf16'"):
        load(tmp_path, dtype="bf61")
    for device in ("gpu", "cuda:99"):
        with pytest.raises(ConfigError, match=rf"device '{device}' .* this machine"):
            load(tmp_path, device=device)


def test_learned_positions_reach_to_the_end_of_the_context():
    spec = gpt2(width=32, layers=1, heads=2, vocab=CHARS.vocab, context=24)
    model = LanguageModel(spec.build(), tokenizer=CHARS)
    made = model.generations(["a" * 20, "b"], max_new_tokens=None)
    assert [len(one.prompt_ids) + len(one.ids) for one in made if one.finish == "context"] == [24] * 2
