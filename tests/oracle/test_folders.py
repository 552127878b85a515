"""Folders go in and out without losing a bit, and transformers opens what is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from groundup.families import family_of
from groundup.hub import folder
from oracle.cases import CASES
from oracle.cases.gpt2 import GPT2
from oracle.cases.llama import LLAMA
from oracle.pair import Config, distance, make


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_folder_in_out_and_in_again_is_bitwise_the_same(case: str, tmp_path: Path):
    pair = make(CASES[case], tmp_path / "theirs")
    folder.write_hf(pair.ours.state_dict(), spec=pair.ours.spec, folder=tmp_path / "ours")
    again = folder.read(tmp_path / "ours")
    assert again.spec == pair.ours.spec
    assert same(again.state_dict(), pair.ours.state_dict())
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    if family_of(pair.ours.spec) is pair.family:  # else the first family that says the same, which may join less
        assert same(back.state_dict(), pair.theirs.state_dict())
    ids = pair.ids(2, 40)
    # Their configuration from ours means the same, if not in the same words: gelu_fast is gelu_new, but for one digit.
    assert distance(back(ids).logits, pair.theirs(ids).logits) < pair.tolerance


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("config", [GPT2, LLAMA | {"tie_word_embeddings": True}], ids=["gpt2", "llama"])
@torch.no_grad()
def test_other_dtypes_come_through_bitwise(config: Config, dtype: torch.dtype, tmp_path: Path):
    theirs = make(config, tmp_path / "float32").theirs.to(dtype)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = folder.read(tmp_path / "theirs")
    assert {p.dtype for p in ours.parameters()} == {dtype}
    folder.write_hf(ours.state_dict(), spec=ours.spec, folder=tmp_path / "ours")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert same(back.state_dict(), theirs.state_dict())


def test_folder_of_several_files_is_bitwise_the_same(tmp_path: Path):
    pair = make(CASES["gpt2/untied"], tmp_path / "theirs")
    pair.theirs.save_pretrained(tmp_path / "cut", max_shard_size="50KB")
    assert len(list((tmp_path / "cut").glob("*.safetensors"))) > 2
    ours = folder.read(tmp_path / "cut")
    assert same(ours.state_dict(), pair.ours.state_dict())
    folder.write_hf(ours.state_dict(), spec=ours.spec, folder=tmp_path / "ours", shard_bytes=50_000)
    assert len(list((tmp_path / "ours").glob("*.safetensors"))) > 2
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert same(back.state_dict(), pair.theirs.state_dict())


def test_files_of_the_bare_model_have_shorter_names_and_are_read(tmp_path: Path):
    """The hub's gpt2 was saved without its head's wrapper: its names have no ``transformer.`` in front."""
    for case in ("gpt2/tied", "llama/tied"):
        pair = make(CASES[case], tmp_path / case)
        bare = pair.theirs.base_model
        bare.save_pretrained(tmp_path / case / "bare")
        assert not any(name.startswith(bare.base_model_prefix) for name in bare.state_dict())
        (tmp_path / case / "bare" / "config.json").write_text(json.dumps(CASES[case]))
        assert same(folder.read(tmp_path / case / "bare").state_dict(), pair.ours.state_dict())


def test_names_of_older_versions_are_read(tmp_path: Path):
    """Published Pythias call their head embed_out."""
    pair = make(CASES["gpt_neox/tied"] | {"tie_word_embeddings": False}, tmp_path)
    weights = pair.theirs.state_dict()
    save_file(weights | {"embed_out.weight": weights.pop("lm_head.weight")}, tmp_path / "model.safetensors")
    assert same(folder.read(tmp_path).state_dict(), pair.ours.state_dict())


def test_ids_of_special_tokens_are_written_and_unknown_ones_are_not_guessed(tmp_path: Path):
    pair = make(CASES["gpt2/tied"], tmp_path / "theirs")
    weights, spec = pair.ours.state_dict(), pair.ours.spec
    folder.write_hf(weights, spec=spec, folder=tmp_path / "ours", tokens={"eos_token_id": 7})
    config = transformers.AutoConfig.from_pretrained(tmp_path / "ours")
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (None, 7, None)


@pytest.mark.parametrize("case", CASES)
def test_configuration_that_transformers_rewrote_means_the_same(case: str, tmp_path: Path):
    pair = make(CASES[case], tmp_path)
    pair.theirs.config.save_pretrained(tmp_path)
    spec = folder.read_spec(tmp_path / "config.json")
    assert spec == pair.ours.spec
    family = family_of(spec)
    assert family is not None and spec == family.spec(family.config(spec))
