"""OLMo Hybrid's files as published: values wider than keys, a convolution each, norms by their older names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from groundup.hub import folder
from groundup.model.decoder import Decoder
from oracle.cases.olmo_hybrid import HYBRID
from oracle.pair import LOOSER, Config, distance, make, randomise, theirs_of

WIDE: Config = {k: v for k, v in HYBRID.items() if k not in ("linear_key_head_dim", "linear_value_head_dim")}
KEYS = 36  # all heads of three quarters of the width; values are twice as wide by default


def published(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights as the checkpoint's authors name them."""
    files: dict[str, Tensor] = {}
    for name, weight in weights.items():
        layer = name.split(".self_attn")[0].split(".linear_attn")[0].rsplit(".", 2)[0]
        if name.endswith("conv1d.weight"):
            parts = zip("qkv", weight.split([KEYS, KEYS, 2 * KEYS]), strict=True)
            files |= {name.replace("conv1d", f"{part}_conv1d"): cut.contiguous() for part, cut in parts}
        elif f"{layer}.input_layernorm.weight" in weights:
            name = name.replace("input_layernorm", "attention_layer_norm")
            files[name.replace("post_attention_layernorm", "feedforward_layer_norm")] = weight
        else:
            files[name] = weight
    return files


@torch.no_grad()
def test_published_files_are_read_and_written_as_transformers_reads_them(tmp_path: Path):
    theirs = transformers.AutoModelForCausalLM.from_config(theirs_of(WIDE), dtype=torch.float32).eval()
    randomise(theirs, seed=0)
    save_file(published(dict(theirs.state_dict())), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(WIDE))
    ours = folder.read(tmp_path)
    assert isinstance(ours.spec, Decoder)
    ids = torch.randint(61, (2, 100), generator=torch.Generator().manual_seed(0))
    assert distance(ours(ids), theirs(ids).logits) < LOOSER["olmo_hybrid"]
    folder.write_hf(ours.state_dict(), spec=ours.spec, folder=tmp_path / "ours")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert all(torch.equal(weight, theirs.state_dict()[name]) for name, weight in back.state_dict().items())


@pytest.mark.parametrize(
    "config", [WIDE, HYBRID | {"linear_num_key_heads": 2, "linear_value_head_dim": 4}], ids=["wide values", "few keys"]
)
@torch.no_grad()
def test_convolutions_that_transformers_saved_in_equal_thirds_are_read(config: Config, tmp_path: Path):
    pair = make(config, tmp_path)
    ids = pair.ids(2, 40)
    assert distance(pair.ours(ids), pair.theirs(ids).logits) < pair.tolerance
