"""RWKV-4 that transformers halves on the way, which it does in evaluation: norms see a smaller stream."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from groundup.hub import folder
from oracle.cases.rwkv import RWKV
from oracle.pair import class_of, distance, make, read_on

HALVED = {
    "usual": RWKV | {"num_hidden_layers": 7},
    "at the end": RWKV | {"rescale_every": 2},
    "every layer": RWKV | {"rescale_every": 1, "num_hidden_layers": 3, "layer_norm_epsilon": 1e-2},
    "never": RWKV | {"rescale_every": 0, "num_hidden_layers": 3},
}


@pytest.mark.parametrize("name", HALVED)
@torch.no_grad()
def test_a_stream_that_is_halved_makes_the_logits_and_texts_of_transformers(name: str, tmp_path: Path):
    pair = make(HALVED[name], tmp_path)
    ids = pair.ids(3, 40)
    assert distance(pair.ours(ids), pair.theirs(ids).logits) < pair.tolerance
    state, cache = pair.ours.new_state(1, 48), None
    for piece in ids[:1].split([7, *[1] * 20, 13], 1)[:-1]:
        logits, cache = read_on(pair.theirs, piece, cache)
        assert distance(pair.ours(piece, state), logits) < pair.tolerance


@pytest.mark.parametrize("name", HALVED)
def test_folder_of_a_halved_stream_is_bitwise_the_same(name: str, tmp_path: Path):
    pair = make(HALVED[name], tmp_path / "theirs")
    folder.write_hf(pair.ours.state_dict(), spec=pair.ours.spec, folder=tmp_path / "ours")
    assert folder.read(tmp_path / "ours").spec == pair.ours.spec
    back = class_of(HALVED[name]).from_pretrained(tmp_path / "ours")
    assert all(torch.equal(weight, back.state_dict()[name]) for name, weight in pair.theirs.state_dict().items())
