"""transformers opens our checkpoints and saved models, and finds our numbers and our words in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from groundup.families.gpt2 import gpt2
from groundup.families.llama import llama
from groundup.infer.language_model import LanguageModel
from groundup.infer.load import load
from groundup.model.decoder import Decoder, DecoderModel
from groundup.optim.joint import JointOptimizer, state_tensors
from groundup.optim.optimizers import Muon
from groundup.specs import override
from groundup.text.train import train
from groundup.training import checkpoint
from groundup.training.checkpoint import load_latest
from oracle.pair import TOLERANCE, distance

TEXT = "the cat and the dog; naïve 漢字 the end\n  return 12345\n" * 3
WORDS = train([TEXT], vocab=280)
FAMILIES: dict[str, Decoder] = {
    "gpt2": gpt2(width=32, layers=2, heads=4, vocab=WORDS.vocab, context=32, deviation=0.3),
    "gpt2-untied": gpt2(width=32, layers=2, heads=4, vocab=WORDS.vocab, context=32, tied=False, deviation=0.3),
    "llama": llama(
        width=32, layers=2, heads=4, kv_heads=2, hidden=64, vocab=WORDS.vocab, context=32, bias=True, deviation=0.3
    ),
    "llama-tied": llama(width=32, layers=2, heads=4, hidden=64, vocab=WORDS.vocab, context=32, tied=True),
}
ALONE = override(FAMILIES["llama"], "layers.*.mix.post", "LayerNorm")  # transformers has no word for it
IDS = torch.randint(WORDS.vocab, (2, 20), generator=torch.Generator().manual_seed(0))


def trained(spec: Decoder) -> tuple[DecoderModel, JointOptimizer]:
    model: DecoderModel = spec.build(seed=1)
    optimizer = Muon().build(model)
    for _ in range(2):
        model(IDS).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def save(folder: Path, spec: Decoder) -> tuple[DecoderModel, JointOptimizer, Path]:
    model, optimizer = trained(spec)
    path = checkpoint.save(folder, 2, model=model, spec=spec, optimizer=optimizer, loop={"seen": 40})
    return model.eval(), optimizer, path


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_transformers_opens_a_checkpoint_and_computes_our_logits(name: str, tmp_path: Path):
    with torch.enable_grad():
        model, _, path = save(tmp_path, FAMILIES[name])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(path).eval()
    assert theirs.dtype == torch.float32
    assert distance(theirs(IDS).logits, model(IDS)) < TOLERANCE


@pytest.mark.parametrize("spec", [*FAMILIES.values(), ALONE], ids=[*FAMILIES, "of-no-family"])
def test_checkpoint_in_either_naming_is_restored_bit_by_bit(spec: Decoder, tmp_path: Path):
    model, optimizer, path = save(tmp_path, spec)
    assert (path / "config.json").exists() == (spec is not ALONE)
    found = load_latest(tmp_path)
    assert found is not None and found.spec == spec
    other: DecoderModel = spec.build(seed=7)
    resumed = Muon().build(other)
    assert found.restore(other, resumed) == {"seen": 40}
    for mine, theirs in ((model.state_dict(), other.state_dict()), (state_tensors(optimizer), state_tensors(resumed))):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    read = load(path, device="cpu").module
    assert all(torch.equal(weight, read.state_dict()[key]) for key, weight in model.state_dict().items())


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_transformers_opens_a_saved_model_with_its_tokenizer(name: str, tmp_path: Path):
    model = LanguageModel(FAMILIES[name].build(seed=1).eval(), tokenizer=WORDS)
    model.save(tmp_path / "model")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    assert distance(theirs(IDS).logits, model(IDS)) < TOLERANCE
    words: Any = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    for text in (TEXT, " the  cat", "漢字 naïve\n\n\tnever seen ☃"):
        assert words(text)["input_ids"] == WORDS.encode(text, framed=True)
        assert words.decode(WORDS.encode(text)) == text
    assert (words.bos_token_id, words.eos_token_id) == (WORDS.begin, WORDS.end)
    assert (theirs.config.bos_token_id, theirs.config.eos_token_id) == (WORDS.begin, WORDS.end)
