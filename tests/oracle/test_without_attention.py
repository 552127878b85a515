"""Hybrids whose few layers are all recurrent: transformers reads texts with them, and generates none (5.23)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from groundup.hub import folder
from oracle.cases.jamba import JAMBA
from oracle.cases.qwen3_next import NEXT
from oracle.cases.recurrent_gemma import GRIFFIN
from oracle.pair import Config, distance, make

RECURRENT = {
    "recurrent_gemma": GRIFFIN | {"num_hidden_layers": 2},
    "jamba": JAMBA | {"attn_layer_period": 8, "attn_layer_offset": 4, "hidden_act": "gelu"},
    "qwen3_next": NEXT | {"num_hidden_layers": 2},
    "qwen3_next, no experts": NEXT | {"num_hidden_layers": 2, "num_experts": 0},
}


@pytest.mark.parametrize("config", RECURRENT.values(), ids=RECURRENT)
@torch.no_grad()
def test_logits_are_equal_and_the_folder_comes_back(config: Config, tmp_path: Path):
    pair = make(config, tmp_path / "theirs")
    ids = pair.ids(2, 40)
    assert distance(pair.ours(ids), pair.theirs(ids, use_cache=False).logits) < pair.tolerance
    folder.write_hf(pair.ours.state_dict(), spec=pair.ours.spec, folder=tmp_path / "ours")
    assert folder.read(tmp_path / "ours").spec == pair.ours.spec
    back = type(pair.theirs).from_pretrained(tmp_path / "ours").state_dict()
    assert all(torch.equal(weight, back[name]) for name, weight in pair.theirs.state_dict().items())
