"""An encoder-decoder answers texts, ragged ones side by side as each alone, and its folder says how answers end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.errors import GenerationError, SpecError, TextError
from groundup.families import family_of_config
from groundup.families.t5 import t5
from groundup.infer.load import load
from groundup.infer.text_to_text import TextToText
from groundup.model.encoder_decoder import EncoderDecoderModel
from groundup.text.train import train

WORDS = train(["the cat and the dog; naïve 漢字 the end\n" * 3], kind="char")
SPEC = t5(width=32, layers=2, heads=4, hidden=48, head_width=8, vocab=WORDS.vocab + 3, context=40, end=WORDS.end)
SOURCES = [[1, 2, 3, 4, 5, 6, 7], [4], [9, 8, 7]]


def lively(**changes: Any) -> EncoderDecoderModel:
    """Returns the model with weights so large that texts differ and end."""
    model = SPEC.replace(**changes).build(seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.3)
    return model


MODULE = lively()
BARE = TextToText(MODULE)
MODEL = TextToText(MODULE, tokenizer=WORDS)


def test_call_on_ragged_sources_is_the_call_on_each():
    ids = [[0, 3, 5]] * 3
    logits = BARE(ids, source=SOURCES)
    assert (logits.shape, logits.dtype) == ((3, 3, SPEC.decoder.vocab), torch.float32)
    for row, source in zip(logits, SOURCES, strict=True):
        torch.testing.assert_close(row, BARE(ids[:1], source=torch.tensor([source]))[0])
    hidden = BARE.hidden(ids, source=SOURCES)
    torch.testing.assert_close(MODULE.decoder.logits(hidden), logits)


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "seed": 3}, {"beams": 3}])
def test_ragged_sources_give_what_each_gives_alone(sampling: dict[str, Any]):
    together = BARE.generations(SOURCES, max_new_tokens=12, **sampling)
    assert [made.ids for made in together] == [
        BARE.generate(source, max_new_tokens=12, **sampling) for source in SOURCES
    ]
    assert len({tuple(made.ids) for made in together}) == 3


def test_greedy_is_the_argmax_after_the_start_token():
    made = BARE.generations(SOURCES, max_new_tokens=8)
    for source, row in zip(SOURCES, made, strict=True):
        logits = BARE([[SPEC.start, *row.ids[:-1]]], source=[source])
        assert row.ids == logits[0].argmax(-1).tolist()


def test_texts_in_and_out_and_streamed():
    texts = ["the cat", "", "漢字 the dog"]
    answers = MODEL.generate(texts, max_new_tokens=9)
    assert answers == [MODEL.generate(text, max_new_tokens=9) for text in texts]
    for text, answer in zip(texts, answers, strict=True):
        assert "".join(MODEL.stream(text, max_new_tokens=9)) == answer
    assert "".join(MODEL.stream("the cat", max_new_tokens=9, beams=2)) == MODEL.generate(
        "the cat", max_new_tokens=9, beams=2
    )


def test_an_encoder_reads_each_source_once_however_many_tokens_and_beams_follow():
    calls = {"encoder": 0, "memory": 0}

    def count(name: str):
        return lambda *_: calls.__setitem__(name, calls[name] + 1)

    layers = {"encoder": "encoder.layers.0", "memory": "decoder.layers.0.cross.mixer.k"}
    watched = [MODULE.get_submodule(path).register_forward_hook(count(name)) for name, path in layers.items()]
    BARE.generations(SOURCES, max_new_tokens=10, beams=3)
    for hook in watched:
        hook.remove()
    assert calls == {"encoder": 1, "memory": 1}


def test_texts_end_at_the_token_that_the_configuration_names():
    free = BARE.generate(SOURCES[0], max_new_tokens=12)
    ending = TextToText(lively(end=free[3]))
    assert ending.generate(SOURCES[0], max_new_tokens=12) == free[: free.index(free[3]) + 1]
    endless = TextToText(lively(end=None)).generations(SOURCES, max_new_tokens=12)
    assert {row.finish for row in endless} == {"length"}


@pytest.mark.parametrize("beams", [1, 3])
def test_first_and_last_tokens_that_are_given_stand_there(beams: int):
    framed = TextToText(lively(first=7, last=5, end=5, start=2))
    for row in framed.generations(SOURCES, max_new_tokens=6, beams=beams):
        assert row.ids[0] == 7 and row.ids[-1] == 5 and row.finish == "end"
        assert framed.generate(row.source_ids, max_new_tokens=1) == [5]


def test_a_saved_model_is_loaded_as_it_was(tmp_path: Path):
    MODEL.save(tmp_path / "model")
    (tmp_path / "model" / "spec.json").unlink()  # what is left is a folder of transformers
    (tmp_path / "model" / "MANIFEST.sha256").unlink()
    loaded = load(tmp_path / "model")
    assert isinstance(loaded, TextToText) and loaded.spec == SPEC
    assert loaded.generate("the cat") == MODEL.generate("the cat")
    assert "TextToText" in repr(loaded)
    said = {"eos_token_id": [6], "decoder_start_token_id": 4, "forced_eos_token_id": 6, "bos_token_id": 3}
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(said))
    assert load(tmp_path / "model").spec == SPEC.replace(end=6, start=4, last=6)


def test_a_configuration_with_several_end_tokens_is_refused():
    config = family_of_config({"model_type": "t5"}).config(SPEC)
    with pytest.raises(SpecError, match="eos_token_id is \\[1, 2\\]; expected the id of one token"):
        family_of_config(config).spec(config | {"eos_token_id": [1, 2]})
    with pytest.raises(SpecError, match="end=99999 is no token"):
        SPEC.replace(end=99999)


def test_what_cannot_be_read_is_said():
    with pytest.raises(GenerationError, match="the source has no token"):
        BARE.generate_ids([])
    with pytest.raises(GenerationError, match="the source is 41 tokens long and the model's context 40"):
        BARE.generate_ids([1] * 41)
    with pytest.raises(GenerationError, match="token id 999 is outside"):
        BARE([[0]], source=[[999]])
    with pytest.raises(TextError, match="no tokenizer"):
        BARE.generate("the cat")
