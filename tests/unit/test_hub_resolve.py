"""Every form of MODEL is found for what it is, and what is none is told with the nearest that are."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
import yaml

from groundup.errors import CheckpointError, ConfigError, GroundupError, ModelError, SpecError, WeightsError
from groundup.families import PRESETS
from groundup.families.llama import llama
from groundup.hub import folder, manifest, resolve

SPEC = llama(width=16, layers=2, heads=2, hidden=24, vocab=11, context=8)
OTHER = llama(width=16, layers=1, heads=2, hidden=24, vocab=11, context=8)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def checkpoint(path: Path, *, seed: int = 1) -> Path:
    path.mkdir(parents=True)
    folder.write(SPEC.build(seed=seed).state_dict(), spec=SPEC, folder=path)
    manifest.write_manifest(path)
    return path


def run(path: Path) -> Path:
    """A run with two checkpoints and a tokenizer."""
    for step in (100, 200):
        checkpoint(path / "checkpoints" / f"step-{step:06}", seed=step)
    (path / "checkpoints" / "latest").write_text("step-000200\n")
    (path / "tokenizer").mkdir()
    (path / "tokenizer" / "tokenizer.json").write_text("{}")
    (path / "spec.json").write_text(json.dumps(SPEC.to_dict()))
    return path


def embedding(found: resolve.Found) -> torch.Tensor:
    return resolve.weights(found).embed.weight


def built(seed: int) -> torch.Tensor:
    return SPEC.build(seed=seed).embed.weight


@pytest.mark.parametrize("name", ["gpt2", "gpt3-175b", "llama-3.2-1b", "smollm2-135m"])
def test_preset_is_found_by_its_name(name: str):
    found = resolve.find(name)
    assert (found.kind, found.spec, found.weights, found.tokenizer) == ("preset", PRESETS[name](), None, None)


def test_preset_has_no_weights():
    with pytest.raises(ModelError, match="has no weights yet; train it"):
        resolve.weights(resolve.find("gpt2"))


def test_folder_with_the_name_of_a_preset_needs_a_dot_in_front(tmp_path: Path):
    checkpoint(tmp_path / "gpt2")
    assert resolve.find("gpt2").kind == "preset"
    for given in ("./gpt2", "gpt2/", Path("gpt2"), str(tmp_path / "gpt2")):
        assert resolve.find(given).kind == "checkpoint"


def test_spec_is_found_as_itself():
    assert resolve.find(SPEC).kind == "spec" and resolve.spec(SPEC) is SPEC


def test_run_gives_its_latest_checkpoint_and_its_tokenizer(tmp_path: Path):
    path = run(tmp_path / "runs" / "first")
    for given in (path, "runs/first", "runs/first/"):
        found = resolve.find(given)
        assert found.kind == "run" and found.spec == SPEC
        assert found.weights is not None and found.weights.name == "step-000200"
        assert found.tokenizer is not None and found.tokenizer.resolve() == path / "tokenizer"
        assert torch.equal(embedding(found), built(200))


def test_checkpoint_of_a_run_finds_the_tokenizer_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = run(tmp_path / "runs" / "first")
    found = resolve.find("runs/first/checkpoints/step-000100")
    assert found.kind == "checkpoint" and torch.equal(embedding(found), built(100))
    assert found.tokenizer is not None and found.tokenizer.resolve() == path / "tokenizer"
    monkeypatch.chdir(path / "checkpoints" / "step-000100")
    assert resolve.find(".").tokenizer == path / "tokenizer"


def test_run_without_a_checkpoint_has_a_spec_and_no_weights(tmp_path: Path):
    (tmp_path / "new" / "checkpoints").mkdir(parents=True)
    with pytest.raises(ModelError, match="without a checkpoint"):
        resolve.find("new")
    (tmp_path / "new" / "spec.json").write_text(json.dumps(SPEC.to_dict()))
    found = resolve.find("new")
    assert (found.kind, found.spec, found.weights, found.tokenizer) == ("run", SPEC, None, None)


@pytest.mark.parametrize("text", ["", "step-000300", "../../elsewhere", "/", "..", "step-000200/x", "\xff\x00"])
def test_pointer_that_leads_nowhere_gives_the_newest_checkpoint_as_when_the_run_goes_on(text: str, tmp_path: Path):
    path = run(tmp_path / "first")
    (path / "checkpoints" / "latest").write_text(text)
    assert resolve.find("first").weights == Path("first/checkpoints/step-000200")


def test_checkpoint_without_a_pointer_is_that_of_the_run(tmp_path: Path):
    path = run(tmp_path / "first")
    (path / "checkpoints" / "latest").unlink()  # a crash came before it was written
    assert torch.equal(embedding(resolve.find("first")), built(200))


def test_checkpoint_alone_has_the_tokenizer_beside_it_or_none(tmp_path: Path):
    path = checkpoint(tmp_path / "alone")
    assert resolve.find(path).tokenizer is None
    (path / "tokenizer").mkdir()
    (path / "tokenizer" / "tokenizer.json").write_text("{}")
    assert resolve.find(path).tokenizer == path / "tokenizer"
    (path / "tokenizer.json").write_text("{}")
    assert resolve.find(path).tokenizer == path


def test_changed_description_of_a_checkpoint_is_refused(tmp_path: Path):
    path = checkpoint(tmp_path / "alone")
    (path / "spec.json").write_text(json.dumps(OTHER.to_dict()))
    with pytest.raises(CheckpointError, match=r"spec.json has"):
        resolve.find(path)


def test_changed_weights_of_a_checkpoint_are_refused_when_they_are_read(tmp_path: Path):
    path = checkpoint(tmp_path / "alone")
    data = bytearray((path / "model.safetensors").read_bytes())
    data[-2] ^= 4
    (path / "model.safetensors").write_bytes(data)
    found = resolve.find(path)
    with pytest.raises(CheckpointError, match="has changed"):
        resolve.weights(found)


def test_hugging_face_folder_is_found(tmp_path: Path):
    folder.write_hf(SPEC.build(seed=3).state_dict(), spec=SPEC, folder=tmp_path / "theirs")
    (tmp_path / "theirs" / "tokenizer.json").write_text("{}")
    found = resolve.find("theirs")
    assert (found.kind, found.spec, found.tokenizer) == ("huggingface", SPEC, Path("theirs"))
    assert torch.equal(embedding(found), built(3))
    assert resolve.weights(found, dtype=torch.bfloat16).embed.weight.dtype == torch.bfloat16


def test_folder_with_a_configuration_only_can_be_planned_but_not_loaded(tmp_path: Path):
    folder.write_hf(SPEC.build(seed=3).state_dict(), spec=SPEC, folder=tmp_path / "theirs")
    (tmp_path / "theirs" / "model.safetensors").unlink()
    assert resolve.spec("theirs") == SPEC
    with pytest.raises(ModelError, match="has no weights yet"):
        resolve.weights(resolve.find("theirs"))
    (tmp_path / "theirs" / "pytorch_model.bin").write_bytes(pickle.dumps(1))
    with pytest.raises(WeightsError, match="is a pickle"):
        resolve.weights(resolve.find("theirs"))


@pytest.mark.parametrize("name", ["model.json", "model.yaml", "model.yml"])
def test_file_with_a_spec_is_found(name: str, tmp_path: Path):
    data = SPEC.to_dict()
    (tmp_path / name).write_text(json.dumps(data) if name.endswith("json") else yaml.safe_dump(data))
    found = resolve.find(name)
    assert (found.kind, found.spec, found.weights) == ("file", SPEC, None)


def test_numbers_of_yaml_may_be_written_as_people_write_them(tmp_path: Path):
    text = yaml.safe_dump(SPEC.to_dict() | {"norm": {"kind": "RMSNorm", "eps": "EPS"}}).replace("EPS", "1e-5")
    (tmp_path / "model.yaml").write_text(text)
    assert resolve.spec("model.yaml").norm == SPEC.norm


def test_bare_configuration_is_found_whatever_its_name(tmp_path: Path):
    config = {
        "vocab_size": 64000,
        "max_position_embeddings": 32768,
        "hidden_size": 8192,
        "num_hidden_layers": 60,
        "num_attention_heads": 64,
        "intermediate_size": 32768,
        "hidden_act": "swiGLU",
        "rotary_emb_fraction": 1.0,
        "use_flash_attention": True,
        "layer_norm_eps": 1e-6,
        "rope_theta": 10000,
        "attention_bias": True,
    }
    for name in ("config.json", "mine.json"):
        (tmp_path / name).write_text(json.dumps(config))
        with torch.device("meta"):
            assert sum(p.numel() for p in resolve.spec(name).build().parameters()) == 65_476_042_752


def test_errors_of_a_file_name_the_file(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"n_embd": 16, "n_head": 3}))
    with pytest.raises(SpecError, match=r"config.json: width=16 is not a multiple of heads=3"):
        resolve.find("config.json")
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(SPEC.to_dict() | {"widht": 3}))
    with pytest.raises(ConfigError, match=r"spec.yaml: Decoder has no setting widht; did you mean 'width'"):
        resolve.find("spec.yaml")


@pytest.mark.parametrize(
    ("name", "data", "error", "said"),
    [
        ("a.gguf", b"GGUF\x03", ModelError, "gguf_file="),
        ("pytorch_model.bin", pickle.dumps(1), WeightsError, "is a pickle"),
        ("model.pt", pickle.dumps(1), WeightsError, "is a pickle"),
        ("model.safetensors", b"", ModelError, "give the folder"),
        ("notes.txt", b"hello", ModelError, "is no model"),
        ("bad.json", b"{", ModelError, "is not JSON"),
        ("deep.json", b"[" * 100_000, ModelError, "is not JSON"),
        ("bad.yaml", b"a: [", ModelError, "is not YAML"),
        ("tag.yaml", b"!!python/object/apply:os.system ['true']", ModelError, "is not YAML"),
        ("list.json", b"[1, 2]", ModelError, "expected a mapping"),
        ("latin.json", b'{"kind": "\xe9"}', ModelError, "UTF-8"),
        ("other.yaml", b"a: 1", ModelError, "has no kind"),
        ("kind.yaml", b"kind: Layer", ConfigError, "Layer"),
        ("type.json", b'{"model_type": "swin"}', SpecError, "no family reads model_type 'swin'"),
    ],
    ids=str,
)
def test_file_that_is_no_model_is_refused_in_one_sentence(
    name: str, data: bytes, error: type[GroundupError], said: str, tmp_path: Path
):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(error, match=said) as caught:
        resolve.find(name)
    assert "\n" not in str(caught.value)


def test_folder_that_is_no_model_names_those_inside(tmp_path: Path):
    checkpoint(tmp_path / "models" / "small")
    with pytest.raises(ModelError, match=r"holds no model .*models/small"):
        resolve.find("models")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="give the folder of a model"):
        resolve.find("empty")


def test_folder_with_a_pickle_only_is_refused_with_the_way_out(tmp_path: Path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "consolidated.00.pth").write_bytes(pickle.dumps(1))
    with pytest.raises(WeightsError, match=r"consolidated.00.pth is a pickle.*save_pretrained"):
        resolve.find("old")


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("gtp2", "'gpt2'"),
        ("llama3-8b", "'llama-3-8b'"),
        ("LLAMA-3-8B", "'llama-3-8b'"),
        ("smollm-135m", "'smollm2-135m'"),
    ],
)
def test_unknown_name_is_told_the_nearest_presets(given: str, near: str):
    with pytest.raises(ModelError, match=near):
        resolve.find(given)


def test_unknown_name_is_told_the_folders_nearby(tmp_path: Path):
    run(tmp_path / "runs" / "quickstart")
    checkpoint(tmp_path / "mine")
    for given in ("quickstrat", "runs/quickstrat", "./runs/quickstrat", str(tmp_path / "runs" / "quick")):
        with pytest.raises(ModelError, match=r"nearby: .*runs/quickstart"):
            resolve.find(given)


def test_unknown_name_beside_folders_of_another_user_is_one_sentence(another_user: None):
    for given in ("clsed", "./clsed", "runs/clsed", "./runs/clsed"):
        with pytest.raises(ModelError, match="is no preset, folder, file or hub id"):
            resolve.find(given)
    with pytest.raises(ModelError, match="closed cannot be read: Permission denied; check its permissions"):
        resolve.find("./closed")


@pytest.mark.parametrize("given", ["", " ", "x" * 5000, "a\0b", "~nobody-of-this-name/x", "a\nb", "/", "..", "?"])
def test_what_is_no_name_is_refused_as_such(given: str):
    with pytest.raises(ModelError) as caught:
        resolve.find(given)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_revision_belongs_to_the_hub(tmp_path: Path):
    with pytest.raises(ModelError, match="is no hub id"):
        resolve.find("gpt2", revision="main")
