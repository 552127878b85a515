"""An encoder makes one vector of each text, whatever is read beside it, and says what it cannot do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.errors import ConfigError, GenerationError, ModelError, TextError
from groundup.families.bert import bert
from groundup.hub import folder
from groundup.hub.sentences import Sentences, read_sentences
from groundup.infer.load import load
from groundup.infer.text_encoder import TextEncoder
from groundup.recipes.evaluate import evaluate
from groundup.text.tokenizer import Tokenizer
from groundup.text.train import train

TEXTS = ["one", "", "three and a longer text", "four 漢字"]
WORDS = train(TEXTS * 3, vocab=260)
SPEC = bert(width=16, layers=2, heads=2, vocab=260, context=40, filling=False)


def encoder(**said: Any) -> TextEncoder:
    return TextEncoder(SPEC.build(seed=1).eval(), tokenizer=WORDS, sentences=Sentences(**said))


def test_vectors_come_in_the_order_of_the_texts_and_do_not_depend_on_their_neighbours():
    model = encoder()
    together = model.embed(TEXTS[:1] + TEXTS[2:])
    torch.testing.assert_close(together, torch.cat([model.embed([text]) for text in TEXTS[:1] + TEXTS[2:]]))
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))


def test_poolings_by_hand():
    hidden, lengths = torch.tensor([[[1.0, 5.0], [3.0, 4.0], [9.0, 9.0]]]), torch.tensor([2])
    for pooling, vector in (("mean", [2.0, 4.5]), ("first", [1.0, 5.0]), ("max", [3.0, 5.0])):
        made = Sentences(pooling=pooling, unit=False).pooled(hidden, lengths)
        assert made.tolist() == [vector]


def test_long_texts_are_cut_to_what_the_model_reads():
    model = encoder(context=8)
    assert torch.equal(model.embed(["abcdefg" * 9]), model.embed(["abcdefg" * 9 + " and more"]))


def test_a_folder_says_how_sentences_are_made(tmp_path: Path):
    folder.write(SPEC.build().state_dict(), spec=SPEC, folder=tmp_path)
    WORDS.save(tmp_path)
    loaded = load(tmp_path)
    assert isinstance(loaded, TextEncoder) and loaded.sentences == Sentences()
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    assert read_sentences(tmp_path) == Sentences(pooling="first", unit=False)
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_lasttoken": true}')
    with pytest.raises(ModelError, match="pools by pooling_mode_lasttoken"):
        load(tmp_path)


@pytest.mark.parametrize("said", [{}, {"pooling": "first", "unit": False}, {"pooling": "max", "context": 8}])
def test_a_saved_encoder_makes_the_same_vectors(said: dict[str, Any], tmp_path: Path):
    model = encoder(**said)
    model.save(tmp_path / "saved")
    again = load(tmp_path / "saved", device="cpu")
    assert isinstance(again, TextEncoder)
    assert torch.equal(again.embed(TEXTS[2:]), model.embed(TEXTS[2:]))
    again.save(tmp_path / "saved", force=True)


def test_a_text_without_a_frame_is_read_after_the_end_token_as_in_our_own_runs():
    model, whole = encoder(), TextEncoder(SPEC.build(seed=1).eval())
    vectors = model.embed(TEXTS)
    for text, vector in zip(TEXTS, vectors, strict=True):
        hidden = whole.hidden([[WORDS.end or 0, *WORDS.encode(text)]])
        torch.testing.assert_close(vector, model.sentences.pooled(hidden, torch.tensor([hidden.shape[1]]))[0])


def test_a_text_without_any_token_is_refused():
    model = TextEncoder(SPEC.build(seed=1).eval(), tokenizer=Tokenizer(WORDS.definition))
    for texts in ([""], ["one", ""]):
        with pytest.raises(GenerationError, match="'' has no token"):
            model.embed(texts)


def test_an_encoder_without_a_head_writes_nothing():
    words = train(TEXTS * 3, vocab=260, special=["[MASK]"])
    model = TextEncoder(SPEC.build(seed=1).eval(), tokenizer=words)
    with pytest.raises(GenerationError, match="has no head"):
        model.diffuse("one", new_tokens=3)
    with pytest.raises(GenerationError, match="has no head"):
        model.fill("one [MASK]")


def test_what_an_encoder_cannot_do_is_said():
    model = encoder()
    with pytest.raises(GenerationError, match="the tokenizer has no mask token"):
        model.generate("one")
    with pytest.raises(TextError, match="expected several texts"):
        model.embed("one")


def test_an_encoder_without_a_head_has_nothing_to_be_scored_by(tmp_path: Path):
    folder.write(SPEC.build().state_dict(), spec=SPEC, folder=tmp_path)
    WORDS.save(tmp_path)
    with pytest.raises(ConfigError, match="has no head that predicts tokens"):
        evaluate(str(tmp_path), str(tmp_path))
