"""Logits, gradients, generated texts and folders of Reformers equal those of transformers.

In float64, for their score of a token that sees only itself, -1e5, leaves float32 two digits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from groundup import rules
from groundup.hub import folder
from oracle.cases import REFORMERS
from oracle.cases.reformer import CASES
from oracle.pair import Pair, class_of, distance, make

TOLERANCE = 1e-10
LENGTHS = [1, 3, 4, 7, 8, 9, 16, 23, 40, 64]


@pytest.fixture(params=REFORMERS, scope="module")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return _pair(REFORMERS[request.param], tmp_path_factory.mktemp("theirs"))


def _pair(config: dict[str, Any], where: Path) -> Pair:
    made = make(config, where)
    made.theirs.lm_head.decoder.bias = made.theirs.lm_head.bias  # which transformers 4 did, and 5.23 leaves out
    made.ours.double()
    made.theirs.double()
    return made


@pytest.fixture(autouse=True)
def _draws_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets their directions be those of float32, whatever the type of the model."""
    draw = torch.randn

    def randn(*size: Any, dtype: torch.dtype | None = None, **settings: Any) -> torch.Tensor:
        return draw(*size, **settings, dtype=torch.float32).to(dtype)

    monkeypatch.setattr(torch, "randn", randn)


def fits(pair: Pair, tokens: int) -> bool:
    """Whether the text is within the context and no shorter than what their local layers look back to.

    In a shorter one their chunks wrap around, and count tokens twice.
    """
    config = pair.theirs.config
    padded = tokens + -tokens % config.lsh_attn_chunk_length
    wraps = config.local_num_chunks_before > 1 and padded <= 2 * config.local_attn_chunk_length < 2 * tokens
    return padded <= pair.ours.spec.context and not wraps


@torch.no_grad()
def test_logits_of_whole_texts_are_equal(pair: Pair):
    for tokens in filter(lambda tokens: fits(pair, tokens), LENGTHS):
        ids = pair.ids(3, tokens, seed=tokens)
        told = pair.theirs(ids).logits
        assert told.std() > 0.3
        assert distance(pair.ours(ids), told) < TOLERANCE, tokens


@torch.no_grad()
def test_texts_read_on_are_equal(pair: Pair):
    """Their reading on mixes rows up, so there is one."""
    for first in (5, 11):
        ids = pair.ids(1, 30, seed=first)
        if not fits(pair, first):
            continue
        state = pair.ours.new_state(1, 40)
        told, ours = pair.theirs(ids[:, :first], use_cache=True), pair.ours(ids[:, :first], state)
        assert distance(ours, told.logits) < TOLERANCE
        for token in ids[:, first:].split(1, 1):
            told = pair.theirs(token, use_cache=True, past_buckets_states=told.past_buckets_states)
            assert distance(pair.ours(token, state), told.logits) < TOLERANCE, state.reach


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"plain positions"}))
def test_gradients_of_all_weights_are_equal(name: str, tmp_path: Path):
    pair = _pair(CASES[name], tmp_path)
    ids, targets = pair.ids(2, 128, seed=4), pair.ids(2, 128, seed=5)  # they train on full tables of positions only
    for model, logits in ((pair.ours, pair.ours(ids)), (pair.theirs, pair.theirs.train()(ids).logits)):
        model.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    spec = pair.ours.spec
    ours = {name: p.grad for name, p in pair.ours.named_parameters()}
    ours = rules.write(ours, pair.family.rules(spec), layers=len(spec.layers))
    for name, weight in pair.theirs.named_parameters():
        assert distance(ours[name.replace("decoder.bias", "bias")], weight.grad) < TOLERANCE, name


@torch.no_grad()
def test_folder_in_out_and_in_again_is_bitwise_the_same(pair: Pair, tmp_path: Path):
    folder.write_hf(pair.ours.state_dict(), spec=pair.ours.spec, folder=tmp_path / "ours")
    again = folder.read(tmp_path / "ours")
    assert again.spec == pair.ours.spec
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in pair.ours.state_dict().items())
    back: Any = class_of({"architectures": ["ReformerModelWithLMHead"]}).from_pretrained(tmp_path / "ours")
    theirs = pair.theirs.state_dict()
    assert all(torch.equal(weight, theirs[name]) for name, weight in back.state_dict().items())
