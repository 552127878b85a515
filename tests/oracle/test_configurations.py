"""Configurations as they lie on the hub are read as transformers reads them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file

from groundup.errors import SpecError
from groundup.families import FAMILIES, family_of_config
from groundup.hub import folder
from oracle.cases.llama import LLAMA
from oracle.pair import TOLERANCE, distance, make, randomise, theirs_of

DATA = Path(__file__).parent.parent / "data"
CONFIGS = {path.stem: json.loads(path.read_text()) for path in sorted((DATA / "configs").glob("*.json"))}

with (DATA / "model_params.csv").open(newline="") as file:
    PUBLISHED = {row["model"]: int(row["total_params"]) for row in csv.DictReader(file)}
PUBLISHED["llama-3.1-8b"] = PUBLISHED["llama-3-8b"]  # they differ in context only


# What their defaults leave to be chosen.
NEEDED = {"deepseek_v2": {"num_experts_per_tok": 2}, "reformer": {"is_decoder": True, "num_buckets": 4}}
KINDS = sorted(kind for f in FAMILIES for kind in f.model_types if kind in transformers.CONFIG_MAPPING)


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", CONFIGS)
def test_published_configuration_has_the_published_parameters(name: str):
    spec = family_of_config(CONFIGS[name]).spec(CONFIGS[name])
    with torch.device("meta"):
        assert parameters(spec.build()) == PUBLISHED[name]


@pytest.mark.parametrize("name", sorted(CONFIGS.keys() - {"swiglu-65b"}))
def test_published_configuration_is_read_as_transformers_reads_it(name: str):
    theirs = theirs_of(CONFIGS[name]).to_dict()
    family = family_of_config(CONFIGS[name])
    ours = family.config(family.spec(CONFIGS[name]))
    if "n_inner" in theirs:
        theirs["n_inner"] = theirs["n_inner"] or 4 * theirs["n_embd"]
    assert {key: theirs[key] for key in ours} == ours


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_configuration_leaves_out_is_what_transformers_takes_it_for(kind: str):
    said = {"model_type": kind, **NEEDED.get(kind, {})}
    whole = json.loads(json.dumps(theirs_of(said).to_dict())) | said
    family = family_of_config(whole)
    for name in whole.keys() - said.keys():
        rest = {key: value for key, value in whole.items() if key != name}
        try:
            read = family.spec(rest)
        except SpecError as refused:
            assert "needs the key" in str(refused)
            continue
        assert read == family.spec(json.loads(json.dumps(theirs_of(rest).to_dict()))), name


def test_configuration_without_names_of_transformers_equals_its_translation(tmp_path: Path):
    small = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}
    given = CONFIGS["swiglu-65b"] | small | {"vocab_size": 100}
    unread = ("layer_norm_eps", "rotary_emb_fraction", "use_flash_attention")
    translated = {key: value for key, value in given.items() if key not in unread}
    translated |= {"rms_norm_eps": given["layer_norm_eps"], "hidden_act": "silu", "model_type": "llama"}
    pair = make(translated, tmp_path)
    assert pair.ours.spec == family_of_config(given).spec(given)
    ids = pair.ids(2, 30)
    assert distance(pair.ours(ids), pair.theirs(ids).logits) < TOLERANCE


@pytest.mark.parametrize("fraction", [0.25, 0.5])
@torch.no_grad()
def test_fraction_turns_the_first_values_of_each_head(fraction: float, tmp_path: Path):
    """transformers' LLaMA leaves the factor unread; its Phi-3 is a LLaMA with joined maps that reads it."""
    llama = {name: value for name, value in LLAMA.items() if name != "model_type"}  # else what it would not do
    config = llama | {"head_dim": 16, "num_key_value_heads": 2, "hidden_size": 64, "partial_rotary_factor": fraction}
    joined = {"model_type": "phi3", "pad_token_id": None, "rope_theta": 10_000.0}
    theirs = transformers.AutoModelForCausalLM.from_config(theirs_of(config | joined)).eval()
    randomise(theirs, seed=0)
    weights = {}
    for name, weight in theirs.state_dict().items():
        if name.endswith("qkv_proj.weight"):
            parts = zip("qkv", weight.split([64, 32, 32]), strict=True)
            weights |= {name.replace("qkv", x): part.clone() for x, part in parts}
        elif name.endswith("gate_up_proj.weight"):
            parts = zip(("gate", "up"), weight.chunk(2), strict=True)
            weights |= {name.replace("gate_up", x): part.clone() for x, part in parts}
        else:
            weights[name] = weight
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    ours = folder.read(tmp_path)
    ids = torch.randint(61, (2, 40), generator=torch.Generator().manual_seed(0))
    assert distance(ours(ids), theirs(ids).logits) < TOLERANCE
    whole = json.dumps(config | {"partial_rotary_factor": 1.0})
    (tmp_path / "config.json").write_text(whole)
    assert distance(folder.read(tmp_path)(ids), theirs(ids).logits) > 0.1
