"""A hub id is fetched once, only what is needed of it, at a fixed commit, and never when offline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from groundup.errors import MissingExtra, ModelError
from groundup.families.bert import bert
from groundup.families.llama import llama
from groundup.hub import folder, resolve
from groundup.hub.sentences import Sentences
from groundup.infer.load import load
from groundup.infer.text_encoder import TextEncoder
from unit.hub_stand_in import StandIn, serving

SPEC = llama(width=16, layers=2, heads=2, hidden=24, vocab=11, context=8)
ID = "org/tiny"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandIn]:
    """A stand-in with one model, and an empty cache."""
    with serving() as stand_in:
        monkeypatch.setattr(constants, "ENDPOINT", stand_in.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", stand_in.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        monkeypatch.chdir(tmp_path)
        publish(stand_in, tmp_path / "one", seed=1)
        yield stand_in


def publish(hub: StandIn, path: Path, *, seed: int) -> str:
    folder.write_hf(SPEC.build(seed=seed).state_dict(), spec=SPEC, folder=path)
    for name in ("tokenizer.json", "chat_template.jinja", "README.md", "pytorch_model.bin", "modeling.py"):
        (path / name).write_text(json.dumps({"this is": name}))
    (path / "onnx").mkdir()
    (path / "onnx" / "model.safetensors").write_text("a second copy")
    (path / "consolidated.safetensors").write_text("another")
    return hub.add(ID, path)


def test_spec_is_had_without_the_weights(hub: StandIn):
    found = resolve.find(ID)
    assert found.kind == "hub" and found.spec == SPEC
    assert found.tokenizer is not None and (found.tokenizer / "tokenizer.json").is_file()
    assert hub.files("") == {"config.json", "tokenizer.json", "chat_template.jinja"}


def test_weights_come_without_pickles_code_or_second_copies(hub: StandIn):
    model = resolve.weights(resolve.find(ID))
    assert torch.equal(model.embed.weight, SPEC.build(seed=1).embed.weight)
    assert hub.files(r"bin|py|safetensors") == {"model.safetensors"}
    assert not any("onnx" in path for path in hub.asked)


def test_second_time_nothing_is_fetched_again(hub: StandIn):
    resolve.weights(resolve.find(ID))
    hub.asked.clear()
    resolve.weights(resolve.find(ID))
    assert hub.files("") == set()


def test_weights_are_those_of_the_commit_whose_spec_was_read(hub: StandIn, tmp_path: Path):
    found = resolve.find(ID)
    publish(hub, tmp_path / "two", seed=2)  # someone pushes in between
    assert torch.equal(resolve.weights(found).embed.weight, SPEC.build(seed=1).embed.weight)
    assert torch.equal(resolve.weights(resolve.find(ID)).embed.weight, SPEC.build(seed=2).embed.weight)


def test_revision_pins_an_older_commit(hub: StandIn, tmp_path: Path):
    first = next(iter(hub.repos[ID]))
    publish(hub, tmp_path / "two", seed=2)
    for found in (resolve.find(ID, revision=first), resolve.find(f"{ID}@{first}")):
        assert found.repo is not None and found.repo.revision == first
        assert torch.equal(resolve.weights(found).embed.weight, SPEC.build(seed=1).embed.weight)


def test_offline_takes_the_cache_and_asks_nobody(hub: StandIn, monkeypatch: pytest.MonkeyPatch):
    resolve.weights(resolve.find(ID))
    hub.asked.clear()
    resolve.weights(resolve.find(ID, offline=True))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    resolve.weights(resolve.find(ID))
    assert hub.asked == []


def test_offline_without_the_files_says_how_to_get_them(hub: StandIn, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ModelError, match="--offline"):
        resolve.find(ID, offline=True)
    found = resolve.find(ID)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE"):
        resolve.weights(found)  # the configuration is there, the weights are not


def test_encoder_makes_its_sentences_as_its_maker_says_the_first_time_and_the_second(hub: StandIn, tmp_path: Path):
    spec = bert(width=16, layers=1, heads=2, vocab=11, context=8, filling=False)
    encoder = TextEncoder(spec.build(seed=1).eval(), sentences=Sentences(pooling="first", unit=False))
    encoder.save(tmp_path / "encoder")
    (tmp_path / "encoder" / "1_Dense").mkdir()
    (tmp_path / "encoder" / "1_Dense" / "model.safetensors").write_text("another")
    hub.add("org/encoder", tmp_path / "encoder")
    for _ in range(2):
        loaded = load("org/encoder", device="cpu")
        assert isinstance(loaded, TextEncoder) and loaded.sentences.pooling == "first" and not loaded.sentences.unit
    assert not any("1_Dense" in path for path in hub.asked)


def test_model_that_writes_is_loaded_whatever_its_folder_says_of_sentences(hub: StandIn):
    pooling = next(iter(hub.repos[ID].values())) / "1_Pooling"
    pooling.mkdir()
    (pooling / "config.json").write_text('{"pooling_mode_lasttoken": true}')
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds]
    (pooling.parent / "modules.json").write_text(json.dumps(modules))
    (pooling.parent / "tokenizer.json").unlink()
    for _ in range(2):
        assert len(load(ID, device="cpu").generate([1, 2], max_new_tokens=3)) == 3


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("org/missing", "no model 'org/missing'"),
        (f"{ID}@v9", "no revision 'v9'"),
        ("org/gated", "accept its terms at huggingface.co/org/gated"),
        ("org/-bad-", "could not be fetched"),
    ],
)
def test_refusal_of_the_hub_is_one_sentence(hub: StandIn, model: str, said: str):
    hub.repos["org/gated"] = hub.repos[ID]
    hub.gated.add("org/gated")
    with pytest.raises(ModelError, match=said) as caught:
        resolve.find(model)
    assert "\n" not in str(caught.value)


@pytest.mark.slow  # huggingface_hub tries a few times before it gives up
def test_half_a_file_is_refused(hub: StandIn):
    hub.short.add("model.safetensors")
    with pytest.raises(ModelError, match="try again"):
        resolve.weights(resolve.find(ID))


def test_hub_that_is_not_there_is_one_sentence(hub: StandIn, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="was not reached"):
        resolve.find(ID)


def test_repository_without_a_model_is_refused(hub: StandIn, tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "README.md").write_text("a data set")
    hub.add("org/data", tmp_path / "data")
    with pytest.raises(ModelError, match=r"has no config.json"):
        resolve.find("org/data")


def test_repository_with_pickles_only_is_refused_without_fetching_them(hub: StandIn, tmp_path: Path):
    publish(hub, tmp_path / "old", seed=3)
    (tmp_path / "old" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="only as pickles"):
        resolve.weights(resolve.find(ID))
    assert hub.files("bin") == set()


def test_missing_package_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingExtra, match=r"pip install 'groundup\[hub\]'"):
        resolve.find(ID)


@pytest.mark.slow
def test_variables_of_the_environment_are_honoured(hub: StandIn, tmp_path: Path):
    code = "import sys; from groundup.hub import resolve; print(resolve.find(sys.argv[1]).repo.revision)"
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}

    def ask(**changes: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, ID]
        return subprocess.run(command, env=environment | changes, cwd=tmp_path, capture_output=True, text=True)

    refused = ask(HF_HUB_OFFLINE="1")
    assert refused.returncode == 1 and "HF_HUB_OFFLINE" in refused.stderr
    commit = next(iter(hub.repos[ID]))
    assert ask().stdout.strip() == commit
    assert list((tmp_path / "home").rglob("config.json"))
    assert json.loads((next((tmp_path / "home").rglob("config.json"))).read_text())["model_type"] == "llama"
    assert ask(HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9").stdout.strip() == commit
