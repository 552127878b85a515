"""What a user passes by mistake from Python ends in one sentence of our own, never in an error from below."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import groundup as gu
import signatures
from groundup.context import Batch
from groundup.families.llama import llama
from groundup.recipes.settings import read_run, read_value
from groundup.text.train import train as train_tokenizer

WORDS = train_tokenizer(["hello world " * 50], vocab=260)
SPEC = llama(width=16, layers=2, heads=2, hidden=24, vocab=260, context=16)
MODEL: Any = gu.LanguageModel(SPEC.build().eval(), tokenizer=WORDS)
ANY: Any = gu
TEXT = {"data": __file__, "budget": gu.updates(1)}


@pytest.fixture(autouse=True)
def _as_users_call() -> Iterator[None]:
    with signatures.unchecked():
        yield


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MODEL.generate(5), "5 was given; expected a text or a list of texts"),
        (lambda: MODEL.generate(None), "None was given; expected a text"),
        (lambda: MODEL.generate(b""), "b'' was given; expected a text"),
        (lambda: MODEL.generate([b"ab"]), "b'ab' was given; expected a text or a list of token ids"),
        (lambda: list(MODEL.stream(None)), "None was given; expected a text or a list of token ids"),
        (lambda: MODEL.generations("ab"), "'ab' was given; expected a list of texts"),
        (lambda: MODEL.generate_ids([1.5]), "the prompt's ids are no whole numbers"),
        (lambda: MODEL.generate_ids(torch.ones(2, 2, dtype=torch.int64)), "the prompt's ids are no whole numbers"),
        (lambda: MODEL.generate("a", max_new_tokens="5"), "max_new_tokens='5' asks for no token"),
        (lambda: MODEL.generate("a", max_new_tokens=2.5), "max_new_tokens=2.5 asks for no token"),
        (lambda: MODEL.generate("a", stop=5), "5 was given; expected a text or a list of texts to stop at"),
        (lambda: MODEL.generate("a", stop=[5]), "the stop string 5 is no text"),
        (lambda: MODEL.generate("a", temperature=math.inf), "temperature=inf; expected a finite number"),
        (lambda: MODEL.generations(["a"], seeds=5), "5 was given; expected a list of seeds"),
        (lambda: MODEL.generations(["a"], seeds=[2**70]), "seed=1180591620717411303424 cannot be used"),
        (lambda: MODEL.generations(["a"], seeds=["x"]), "seed is 'x'; expected a whole number"),
        (lambda: MODEL(None), "the ids are no rows of equal length"),
        (lambda: MODEL([[None]]), "the ids are no rows of equal length"),
        (lambda: MODEL(torch.ones(1, 2, dtype=torch.complex128)), "the ids are complex128 of shape"),
        (lambda: MODEL.save(None), "None is no place on a disk; give the path"),
        (lambda: MODEL.save("a\0b"), "is no place on a disk"),
        (lambda: ANY.load("gpt2", dtype=5), "dtype 5 does not exist"),
        (lambda: ANY.LanguageModel(SPEC), r"takes a module, not a Decoder; call the spec's build\(\)"),
        (lambda: SPEC.build(seed=2**70), "seed=1180591620717411303424; expected a whole number from 0"),
        (lambda: ANY.spec("gpt2").build(seed="a"), "seed='a'; expected a whole number from 0"),
    ],
)
def test_model_asked_for_the_impossible_says_so(call: Callable[[], object], message: str) -> None:
    with pytest.raises(gu.GroundupError, match=message):
        call()


@pytest.mark.parametrize(
    ("ids", "given"), [([[1, 2]], "list"), (torch.tensor([1, 2]), r"\(2,\)"), (torch.tensor(1), r"\(\)")]
)
def test_a_module_that_is_given_no_rows_of_tokens_says_so(ids: Any, given: str) -> None:
    with pytest.raises(gu.GroundupError, match=rf"ids are {given}; expected a tensor of shape \(rows, tokens\)"):
        SPEC.build()(ids)


def test_text_of_another_vocabulary_is_told_by_the_loop() -> None:
    model = SPEC.build()
    ids = torch.tensor([[1, SPEC.vocab + 5, 2]])
    batch = Batch(ids=ids, targets=ids)
    optimizer = gu.AdamW().build(model)
    loop = gu.steps(model, lambda _: batch, gu.next_token, optimizer, gu.Cosine(), until=gu.updates(1))
    with pytest.raises(gu.GroundupError, match=f"token id {SPEC.vocab + 5}, and the model has {SPEC.vocab}"):
        next(loop)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_no_token_is_chosen_from_logits_that_are_not_finite(weight: float, temperature: float) -> None:
    broken = SPEC.build()
    with torch.no_grad():
        broken.embed.weight.fill_(weight)
    with pytest.raises(gu.GroundupError, match="the model's logits are not finite"):
        gu.LanguageModel(broken.eval(), tokenizer=WORDS).generate("a", temperature=temperature)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ANY.Tokenizer.load(None), "None is no place on a disk"),
        (lambda: ANY.Tokenizer.load("a" * 5000), "does not exist; give a tokenizer.json"),
        (lambda: ANY.Tokenizer(None), "the tokenizer is not JSON"),
        (lambda: ANY.Tokenizer("[" * 100_000), "the tokenizer is not JSON"),
        (lambda: ANY.Tokenizer(WORDS.definition, end="<|end|>"), "token id '<|end|>' is outside the vocabulary"),
        (lambda: ANY.Tokenizer(WORDS.definition, chat_template="").chat(5), "message 0 is 5; expected a mapping"),
        (lambda: MODEL.tokenizer.encode_batch("abc"), "expected a list of texts to encode, not str"),
        (lambda: MODEL.tokenizer.encode_batch(None), "expected a list of texts to encode, not NoneType"),
        (lambda: MODEL.tokenizer.decode("12"), "expected token ids to decode, not '12'"),
        (lambda: MODEL.tokenizer.decode(5), "expected token ids to decode, not 5"),
        (lambda: MODEL.tokenizer.decode([1.5]), "token id 1.5 is outside the vocabulary"),
        (lambda: MODEL.tokenizer.decode(torch.ones(2, 2)), "is outside the vocabulary"),
        (lambda: MODEL.tokenizer.save(None), "None is no place on a disk"),
    ],
)
def test_tokenizer_asked_for_the_impossible_says_so(call: Callable[[], object], message: str) -> None:
    with pytest.raises(gu.GroundupError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ANY.train(SPEC, **TEXT, rowz=2), "Run has no setting rowz; did you mean 'rows'"),
        (lambda: ANY.train(SPEC, **TEXT, rows="many"), "rows is 'many'; expected a whole number"),
        (lambda: ANY.train(SPEC, **TEXT, rows=10**30), "rows=1000000000000000000000000000000; expected a whole number"),
        (lambda: ANY.train(SPEC, **TEXT, evaluations=10**9), "evaluations=1000000000; .* from 1 to 10,000"),
        (lambda: ANY.train(SPEC, **TEXT, accumulate=10**9), "accumulate=1000000000; .* from 1 to 10,000"),
        (lambda: ANY.train(SPEC, **TEXT, optimizer=0.1), "optimizer is 0.1; expected .* settings of AdamW or "),
        (lambda: ANY.train(SPEC, **TEXT | {"budget": 3}), "budget=3 is no budget; give one, such as gu.updates"),
        (lambda: ANY.train(SPEC, **TEXT, folder=5), "5 is no place on a disk"),
        (lambda: ANY.hours("1"), "a budget of '1' hours trains nothing or never ends"),
        (lambda: ANY.plan(SPEC, tokens="2B"), "tokens='2B' must be a number above 0"),
        (lambda: ANY.plan(SPEC, rows=1.5), "rows=1.5 must be a whole number above 0"),
        (lambda: ANY.plan(SPEC, rows=10**30), "must be a whole number above 0 and up to 2,147,483,647"),
        (lambda: ANY.plan(SPEC, objective=gu.Masked()), "objective=Masked cannot train the model"),
        (lambda: ANY.plan(SPEC, optimizer="adamw"), "optimizer='adamw' is no optimizer"),
        (lambda: ANY.Attention(heads="8", kv_heads=2, head_width=4), "Attention has heads='8'; expected a whole"),
        (lambda: ANY.RMSNorm(eps="x"), "RMSNorm has eps='x'; expected a number of at least 0"),
        (
            lambda: SPEC.replace(layers=[*SPEC.layers, 3]),
            "Decoder has layers=.*; expected a tuple of .*Layer or Parallel",
        ),
        (lambda: ANY.pattern([], of=2), "a pattern of 0 layers cannot make 2"),
        (lambda: ANY.Muon().build(SPEC), r"a Decoder has no parameters; give the model that it builds"),
        (
            lambda: ANY.Loader("corpora/python", rows=4, context=64),
            "'corpora/python' is no corpus; give one",
        ),
        (lambda: ANY.plan(7), "7 is no model; give a spec, a name, a path or a hub id"),
    ],
)
def test_run_or_spec_that_cannot_be_says_so(call: Callable[[], object], message: str) -> None:
    with pytest.raises(gu.GroundupError, match=message):
        call()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tokenizer.json", "[" * 100_000, "tokenizer.json: the tokenizer is not JSON"),
        ("tokenizer_config.json", '{"a":' * 100_000, "tokenizer_config.json is not JSON"),
        ("tokenizer_config.json", '{"chat_template": {"a": "b"}}', "chat_template in tokenizer_config.json is a dict"),
        (
            "tokenizer_config.json",
            '{"chat_template": [5, {"name": "default", "template": 5}]}',
            "is a int; expected text",
        ),
        ("config.json", '{"a":' * 100_000, "config.json is not JSON"),
        ("config.json", " " * (2**25 + 1), "config.json cannot be read: it has 33,554,433 bytes"),
        ("model.safetensors.index.json", "[" * 100_000, "model.safetensors.index.json is not JSON"),
    ],
    ids=lambda value: value[:30],
)
def test_folder_with_a_strange_file_is_refused(file: str, content: str, message: str, tmp_path: Path) -> None:
    MODEL.save(tmp_path / "model")
    for name in ("spec.json", "contract.json", "MANIFEST.sha256"):
        (tmp_path / "model" / name).unlink()
    if file.endswith("index.json"):
        (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "model-00001-of-00002.safetensors")
    (tmp_path / "model" / file).write_text(content)
    with pytest.raises(gu.GroundupError, match=message):
        gu.load(tmp_path / "model")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows: 2024-99-99", "has a value that YAML cannot read: month must be in"),
        ("rows: " + "[" * 5000, "nested too deeply"),
        ("# " + "a" * 2**21, "it has 2,097,154 bytes, and a file of its kind at most 2,097,152"),
    ],
    ids=["date", "depth", "size"],
)
def test_configuration_that_yaml_cannot_read_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(gu.GroundupError, match=message):
        read_run(tmp_path / "config.yaml")


@pytest.mark.parametrize("text", ["2024-99-99", "[" * 5000])
def test_setting_that_yaml_cannot_read_is_refused(text: str) -> None:
    with pytest.raises(gu.GroundupError, match="is not a value that YAML can read; put it in quotes"):
        read_value(text)
