"""Folders as transformers and the makers of models write them, with old names and needless copies, are read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from groundup.hub import folder
from oracle.cases import EVERY
from oracle.pair import distance, make

NAMES = ["bert/masked", "roberta/masked", "longformer/masked", "big_bird/masked", "modernbert/masked"]
NAMES += ["t5/relu", "t5/gated", "mt5/untied", "bart/plain"]


@pytest.mark.parametrize("name", NAMES)
def test_the_configuration_that_transformers_writes_is_read(name: str, tmp_path: Path):
    pair = make(EVERY[name], tmp_path)
    pair.theirs.config.save_pretrained(tmp_path)
    again = folder.read(tmp_path)
    assert again.spec == pair.ours.spec
    assert all(torch.equal(weight, again.state_dict()[key]) for key, weight in pair.ours.state_dict().items())


EXTRA = {
    "bert/masked": {"bert.pooler.dense.weight": (48, 48), "bert.pooler.dense.bias": (48,)}
    | {"cls.seq_relationship.weight": (2, 48), "cls.seq_relationship.bias": (2,)},
    "roberta/masked": {"roberta.pooler.dense.weight": (48, 48), "roberta.embeddings.position_ids": (1, 66)},
    "longformer/masked": {"longformer.pooler.dense.weight": (48, 48), "longformer.embeddings.position_ids": (1, 66)},
    "t5/relu": {"encoder.embed_tokens.weight": (61, 48), "decoder.embed_tokens.weight": (61, 48)}
    | {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": (32, 4)},
    "bart/plain": {"model.encoder.embed_tokens.weight": (61, 48), "lm_head.weight": (61, 48)},
}


@pytest.mark.parametrize("name", EXTRA)
@torch.no_grad()
def test_tensors_that_nothing_reads_are_passed_over_and_old_names_understood(name: str, tmp_path: Path):
    pair = make(EVERY[name], tmp_path)
    file = tmp_path / "model.safetensors"
    held = load_file(file)
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"} if "bert" in name else {}
    for new, before in old.items():
        held = {key.replace(new, before): weight for key, weight in held.items()}
    save_file(held | {key: torch.zeros(shape) for key, shape in EXTRA[name].items()}, file)
    again = folder.read(tmp_path)
    for key, weight in pair.ours.state_dict().items():
        assert distance(again.state_dict()[key], weight) == 0, key
