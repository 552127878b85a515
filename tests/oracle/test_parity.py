"""Logits, states, gradients and greedy texts equal those of transformers, for every case."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers.core_model_loading import revert_weight_conversion

from groundup import rules
from oracle.cases import CASES
from oracle.cases.gpt2 import GPT2
from oracle.cases.llama import LLAMA
from oracle.pair import Pair, distance, make, read_on

ROOM = 48


@pytest.fixture(params=CASES, scope="module")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make(CASES[request.param], tmp_path_factory.mktemp("theirs"))


@torch.no_grad()
def test_logits_of_whole_sequences_are_equal(pair: Pair):
    ids = pair.ids(3, 40)
    theirs = pair.theirs(ids).logits
    assert theirs.std() > 0.3  # weights too small would make everything equal
    assert distance(pair.ours(ids), theirs) < pair.tolerance


@torch.no_grad()
def test_logits_with_state_are_equal(pair: Pair):
    ids = pair.ids(pair.rows, 40, seed=1)
    state = pair.ours.new_state(pair.rows, ROOM)
    ours = torch.cat([pair.ours(piece, state) for piece in ids.split([7, 1, 1, 18, 1, 12], 1)], 1)
    prompt, *tokens = ids.split([7, *[1] * 33], 1)  # transformers' recurrent models read on a token at a time only
    logits, cache = read_on(pair.theirs, prompt)
    theirs = [logits]
    for token in tokens:
        logits, cache = read_on(pair.theirs, token, cache)
        theirs.append(logits)
    assert distance(ours, torch.cat(theirs, 1)) < pair.tolerance


@torch.no_grad()
def test_ragged_rows_are_equal_to_rows_read_alone(pair: Pair):
    lengths = [9, 2, 14]
    ids = pair.ids(3, max(lengths), seed=2)
    more = pair.ids(3, 6, seed=3)
    state = pair.ours.new_state(3, ROOM)
    first = pair.ours(ids, state, lengths=torch.tensor(lengths))
    later = torch.cat([pair.ours(token, state) for token in more.split(1, 1)], 1)
    for row, length in enumerate(lengths):
        logits, cache = read_on(pair.theirs, ids[row : row + 1, :length])
        assert distance(first[row : row + 1, :length], logits) < pair.tolerance
        steps = []
        for token in more[row : row + 1].split(1, 1):
            logits, cache = read_on(pair.theirs, token, cache)
            steps.append(logits)
        assert distance(later[row : row + 1], torch.cat(steps, 1)) < pair.tolerance


def test_gradients_of_all_weights_are_equal(pair: Pair):
    ids, targets = pair.ids(2, 12, seed=4), pair.ids(2, 12, seed=5)
    for model, logits in ((pair.ours, pair.ours(ids)), (pair.theirs, pair.theirs(ids, use_cache=False).logits)):
        model.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    spec, family = pair.ours.spec, pair.family
    ours = {name: p.grad for name, p in pair.ours.named_parameters() if p.grad is not None}
    ours = rules.write(ours, family.rules(spec), layers=len(spec.layers))
    told = {name: p.grad for name, p in pair.theirs.named_parameters()}
    theirs = {family.rename(name): grad for name, grad in revert_weight_conversion(pair.theirs, told).items()}
    assert ours.keys() == theirs.keys()
    # What is nothing but rounding, as the gradient of the keys' bias without a rotation, is small beside the whole.
    whole = torch.cat([grad.flatten() for grad in theirs.values()]).norm()
    for name, grad in theirs.items():
        assert (ours[name] - grad).norm() <= pair.tolerance * max(grad.norm(), 1e-3 * whole), name


@torch.no_grad()
def test_greedy_texts_are_equal(pair: Pair):
    prompt = pair.ids(pair.rows, 5, seed=6)
    told = pair.theirs.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=-1,
        pad_token_id=0,
    )
    state = pair.ours.new_state(pair.rows, ROOM)
    text, token = [prompt], prompt
    for _ in range(12):
        token = pair.ours(token, state)[:, -1:].argmax(-1)
        text.append(token)
    assert torch.equal(torch.cat(text, 1), told)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("config", [GPT2, LLAMA], ids=["gpt2", "llama"])
@torch.no_grad()
def test_logits_are_equal_whatever_the_weights(config: dict[str, object], seed: int, tmp_path: Path):
    pair = make(config, tmp_path, seed=seed)
    ids = pair.ids(2, 64, seed=seed)
    assert distance(pair.ours(ids), pair.theirs(ids).logits) < pair.tolerance
