"""What encoder-decoders write equals what transformers writes; folders lose no bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from torch.nn import functional as F

from groundup import rules
from groundup.hub import folder
from groundup.infer.text_to_text import TextToText
from groundup.model.heads import Tied
from oracle.cases import ENCODER_DECODERS, EVERY
from oracle.pair import TOLERANCE, Pair, class_of, distance, make, randomise, theirs_of

LENGTHS = [20, 3, 11]


@pytest.fixture(params=ENCODER_DECODERS, scope="module")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make(ENCODER_DECODERS[request.param], tmp_path_factory.mktemp("theirs"))


def tolerance(logits: torch.Tensor) -> float:
    """A head without the scale of the width makes logits of any size, and float32 is exact in proportion."""
    return TOLERANCE * max(1.0, logits.abs().max().item())


@torch.no_grad()
def test_logits_of_targets_after_padded_sources_are_equal(pair: Pair):
    source, ids, lengths = pair.ids(3, 20), pair.ids(3, 30, seed=1), torch.tensor(LENGTHS)
    real = (torch.arange(20) < lengths[:, None]).long()
    told = pair.theirs(input_ids=source, attention_mask=real, decoder_input_ids=ids).logits
    assert distance(pair.ours(ids, source=source, source_lengths=lengths), told) < tolerance(told)
    state = pair.ours.new_state(source, 30, lengths=lengths)
    pieces = [pair.ours(piece, state) for piece in ids.split([7, 1, 1, 21], 1)]
    assert distance(torch.cat(pieces, 1), told) < tolerance(told)


def test_gradients_of_all_weights_are_equal(pair: Pair):
    source, ids, targets = pair.ids(2, 9), pair.ids(2, 12, seed=1), pair.ids(2, 12, seed=2)
    logits = (pair.ours(ids, source=source), pair.theirs(input_ids=source, decoder_input_ids=ids).logits)
    for model, made in zip((pair.ours, pair.theirs), logits, strict=True):
        model.zero_grad()
        F.cross_entropy(made.flatten(0, 1), targets.flatten()).backward()
    spec = pair.ours.spec
    ours = {name: p.grad for name, p in pair.ours.named_parameters()}
    ours = rules.write(ours, pair.family.rules(spec), layers=spec.depth)
    theirs = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in pair.theirs.named_parameters()}
    assert ours.keys() == theirs.keys()
    for name, told in theirs.items():  # those of keys' biases are nothing but rounding
        assert (ours[name] - told).norm() <= TOLERANCE * max(told.norm(), 1e-2), name


@torch.no_grad()
def test_greedy_texts_of_ragged_sources_are_equal(pair: Pair):
    source, lengths = pair.ids(3, 20, seed=3), torch.tensor(LENGTHS)
    real = (torch.arange(20) < lengths[:, None]).long()
    # Without a cache: with one, an expert of transformers' Switch Transformers has all its room again at every token.
    settings = {"max_new_tokens": 12, "do_sample": False, "use_cache": False}
    told = pair.theirs.generate(source, attention_mask=real, **settings)
    sources = [row[:length] for row, length in zip(source.tolist(), LENGTHS, strict=True)]
    made = TextToText(pair.ours).generations(sources, max_new_tokens=12)
    for row, theirs in zip(made, told.tolist(), strict=True):
        assert row.ids == theirs[1 : 1 + len(row.ids)]
        assert row.finish == "length" or row.ids[-1] == pair.ours.spec.end


@pytest.mark.parametrize("rewritten", [False, True], ids=["as-given", "as-version-5-writes-it"])
@pytest.mark.parametrize("name", ["t5/gated", "t5/as-version-5-says", "mt5/untied", "mt5/unsaid", "mt5/called-tied"])
@torch.no_grad()
def test_a_head_that_no_file_holds_is_the_table_unscaled(name: str, rewritten: bool, tmp_path: Path):
    config = EVERY[name]
    theirs = class_of(config)(theirs_of(config)).eval()  # which ties the head, whatever is said
    randomise(theirs, seed=0)
    theirs.save_pretrained(tmp_path / "theirs")
    if not rewritten:
        (tmp_path / "theirs" / "config.json").write_text(json.dumps(config))
    ours = folder.read(tmp_path / "theirs")
    assert ours.spec.decoder.head == Tied()
    source, ids = torch.arange(9)[None] + 2, torch.arange(12)[None] + 5
    told = theirs(input_ids=source, decoder_input_ids=ids).logits
    assert distance(ours(ids, source=source), told) < tolerance(told)
    folder.write_hf(ours.state_dict(), spec=ours.spec, folder=tmp_path / "again")
    again = class_of(config).from_pretrained(tmp_path / "again").eval()
    assert torch.equal(again(input_ids=source, decoder_input_ids=ids).logits, told)
    assert folder.read(tmp_path / "again").spec == ours.spec


@torch.no_grad()
def test_a_bart_without_a_head_makes_logits_of_its_table(tmp_path: Path):
    pair = make(EVERY["bart/plain"], tmp_path / "whole")
    pair.theirs.final_logits_bias.zero_()
    pair.theirs.model.save_pretrained(tmp_path / "bare")
    bare = folder.read(tmp_path / "bare")
    assert bare.spec.decoder.head == Tied()
    source, ids = pair.ids(2, 9), pair.ids(2, 12, seed=1)
    told = pair.theirs(input_ids=source, decoder_input_ids=ids).logits
    assert distance(bare(ids, source=source), told) < tolerance(told)
    folder.write_hf(bare.state_dict(), spec=bare.spec, folder=tmp_path / "again")
    back = transformers.BartForConditionalGeneration.from_pretrained(tmp_path / "again")
    assert distance(back(input_ids=source, decoder_input_ids=ids).logits, told) == 0


@torch.no_grad()
def test_folder_in_out_and_in_again_is_bitwise_the_same(pair: Pair, tmp_path: Path):
    folder.write_hf(pair.ours.state_dict(), spec=pair.ours.spec, folder=tmp_path / "ours")
    again = folder.read(tmp_path / "ours")
    assert again.spec == pair.ours.spec
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in pair.ours.state_dict().items())
    back = class_of({"architectures": [type(pair.theirs).__name__]}).from_pretrained(tmp_path / "ours")
    assert all(torch.equal(weight, back.state_dict()[name]) for name, weight in pair.theirs.state_dict().items())
