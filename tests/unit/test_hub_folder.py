"""Folders with a model are read to the bit or refused in one sentence that says which file and what to do."""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from groundup.errors import CheckpointError, GroundupError, ModelError, SpecError, StorageError, WeightsError
from groundup.families.gpt2 import gpt2
from groundup.families.llama import FAMILY, llama
from groundup.hub import folder, manifest
from groundup.hub.tensors import save
from groundup.model.decoder import Decoder, DecoderModel
from groundup.model.model import ModelModule
from groundup.parts.position import RoPE
from groundup.specs import override

SPECS = {
    "gpt2": gpt2(width=16, layers=2, heads=2, vocab=11, context=8),
    "llama": llama(width=16, layers=2, heads=4, kv_heads=2, hidden=24, vocab=11, context=8, bias=True),
    "tied": llama(width=16, layers=1, heads=2, hidden=24, vocab=11, context=8, tied=True),
    "of-no-family": override(
        llama(width=16, layers=2, heads=2, hidden=24, vocab=11, context=8), "layers.*.mix.post", "LayerNorm"
    ),
}


def build(name: str) -> DecoderModel:
    spec = SPECS[name]
    return spec.build(seed=1)


def same(a: ModelModule, b: ModelModule) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return a.spec == b.spec and one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(params=["gpt2", "llama", "tied"])
def model(request: pytest.FixtureRequest) -> DecoderModel:
    return build(request.param)


@pytest.fixture
def theirs(model: DecoderModel, tmp_path: Path) -> Path:
    folder.write_hf(model.state_dict(), spec=model.spec, folder=tmp_path / "theirs")
    return tmp_path / "theirs"


def test_their_folder_comes_back_bitwise(model: DecoderModel, theirs: Path):
    assert same(folder.read(theirs), model)


@pytest.mark.parametrize("name", SPECS)
def test_our_folder_comes_back_bitwise(name: str, tmp_path: Path):
    model = build(name)
    folder.write(model.state_dict(), spec=model.spec, folder=tmp_path)
    assert same(folder.read(tmp_path), model)
    weights = folder.read_weights(tmp_path, spec=model.spec)
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[name], weight) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("name", SPECS)
def test_our_folder_is_theirs_too_where_a_family_can_say_the_spec(name: str, tmp_path: Path):
    model = build(name)
    folder.write(model.state_dict(), spec=model.spec, folder=tmp_path)
    assert (tmp_path / "config.json").exists() == (name != "of-no-family")
    (tmp_path / "spec.json").unlink()
    if name == "of-no-family":
        with pytest.raises(ModelError, match=r"neither spec\.json nor config\.json"):
            folder.read(tmp_path)
    else:
        assert same(folder.read(tmp_path), model)


def test_our_description_beside_their_weights_is_read(model: DecoderModel, theirs: Path):
    (theirs / "spec.json").write_text(json.dumps(model.spec.to_dict()))
    assert same(folder.read(theirs), model)


def test_several_files_come_back_bitwise(model: DecoderModel, tmp_path: Path):
    folder.write_hf(model.state_dict(), spec=model.spec, folder=tmp_path, shard_bytes=1500)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2
    assert not (tmp_path / "model.safetensors").exists()
    assert same(folder.read(tmp_path), model)


def test_model_is_read_for_evaluation_with_weights_of_its_own(model: DecoderModel, theirs: Path):
    read = folder.read(theirs)
    assert not read.training
    assert all(p.requires_grad and p.is_contiguous() and not p.is_meta for p in read.parameters())
    places = {p.untyped_storage().data_ptr() for p in read.parameters()}
    assert len(places) == len(list(read.parameters()))
    before = {name: weight.clone() for name, weight in read.state_dict().items()}
    (theirs / "model.safetensors").write_bytes(b"")
    assert all(torch.equal(weight, before[name]) for name, weight in read.state_dict().items())


def test_dtype_is_that_of_most_weights_unless_asked_for(theirs: Path):
    weights = load_file(theirs / "model.safetensors")
    half = {name: w.bfloat16() if w.ndim > 1 else w for name, w in weights.items()}
    save_file(half, theirs / "model.safetensors")
    assert {p.dtype for p in folder.read(theirs).parameters()} == {torch.bfloat16}
    assert {p.dtype for p in folder.read(theirs, dtype=torch.float64).parameters()} == {torch.float64}


def test_written_dtype_is_the_one_asked_for(model: DecoderModel, tmp_path: Path):
    folder.write_hf(model.state_dict(), spec=model.spec, folder=tmp_path, dtype=torch.float16)
    assert {w.dtype for w in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float16"


def test_tied_weights_are_written_once(tmp_path: Path):
    model = build("tied")
    folder.write_hf(model.state_dict(), spec=model.spec, folder=tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    assert "lm_head.weight" not in weights and "model.embed_tokens.weight" in weights


def test_head_of_a_tied_model_is_dropped_if_it_is_the_embedding(tmp_path: Path):
    model = build("tied")
    folder.write_hf(model.state_dict(), spec=model.spec, folder=tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    head = weights["model.embed_tokens.weight"].clone()
    save_file(weights | {"lm_head.weight": head}, tmp_path / "model.safetensors")
    assert same(folder.read(tmp_path), model)
    head[3, 5] += 1
    save_file(weights | {"lm_head.weight": head}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="tie_word_embeddings to false"):
        folder.read(tmp_path)


def test_buffers_of_old_files_are_ignored(tmp_path: Path):
    for name, buffer in (("gpt2", "h.1.attn.bias"), ("llama", "model.layers.0.self_attn.rotary_emb.inv_freq")):
        model = build(name)
        folder.write_hf(model.state_dict(), spec=model.spec, folder=tmp_path / name)
        weights = load_file(tmp_path / name / "model.safetensors")
        save_file(weights | {buffer: torch.ones(1, 1, 8, 8)}, tmp_path / name / "model.safetensors")
        assert same(folder.read(tmp_path / name), model)


def test_names_without_their_prefix_are_read(model: DecoderModel, theirs: Path):
    weights = load_file(theirs / "model.safetensors")
    bare = {name.removeprefix("transformer.").removeprefix("model."): w for name, w in weights.items()}
    assert bare.keys() != weights.keys()
    save_file(bare, theirs / "model.safetensors")
    assert same(folder.read(theirs), model)


def test_tensor_under_both_its_names_is_refused(tmp_path: Path):
    model = build("gpt2")
    folder.write_hf(model.state_dict(), spec=model.spec, folder=tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(weights | {"wpe.weight": torch.zeros(8, 16)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="twice, as"):
        folder.read(tmp_path)


def change_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(path / "model.safetensors")
    change(weights)
    save_file(weights, path / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("model.norm.weight"), "lacks model.norm.weight"),
        (lambda w: w.pop("model.layers.1.self_attn.k_proj.bias"), "lacks model.layers.1.self_attn.k_proj.bias"),
        (lambda w: w.update({"model.layers.0.experts.weight": torch.ones(2)}), "unknown model.layers.0.experts.weight"),
        (lambda w: w.update({"model.layers.2.mlp.up_proj.weight": torch.ones(24, 16)}), "unknown model.layers.2.mlp"),
        (
            lambda w: w.update({"model.norm.weight": torch.ones(15)}),
            r"model.norm.weight of shape \(15,\) where .* \(16,\)",
        ),
        (lambda w: w.update({"lm_head.weight": torch.ones(16, 11)}), r"lm_head.weight of shape \(16, 11\)"),
        (lambda w: w.clear(), "lacks lm_head.weight.* and 2. more"),
        (lambda w: w.update({"model.norm.weight": torch.ones(16).to(torch.int8)}), "as I8; this version reads F64"),
    ],
    ids=["missing", "missing-bias", "unknown", "one-layer-more", "narrow", "transposed", "nothing", "quantized"],
)
def test_weights_of_another_model_are_refused_by_name(change: Callable, said: str, tmp_path: Path):
    model = build("llama")
    folder.write_hf(model.state_dict(), spec=model.spec, folder=tmp_path)
    change_weights(tmp_path, change)
    with pytest.raises(WeightsError, match=said):
        folder.read(tmp_path)


def test_names_of_another_architecture_are_refused(tmp_path: Path):
    model = build("gpt2")
    folder.write_hf(model.state_dict(), spec=model.spec, folder=tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(FAMILY.config(SPECS["llama"])))
    with pytest.raises(WeightsError, match="do not belong together"):
        folder.read(tmp_path)


def header(file: bytes) -> int:
    return struct.unpack("<Q", file[:8])[0]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda b: b"",
    "a few bytes": lambda b: b[:5],
    "header only": lambda b: b[: 8 + header(b)],
    "cut in half": lambda b: b[: len(b) // 2],
    "last byte lost": lambda b: b[:-1],
    "a byte too much": lambda b: b + b"\0",
    "huge header": lambda b: struct.pack("<Q", 2**62) + b[8:],
    "header longer than the file": lambda b: struct.pack("<Q", len(b) * 2) + b[8:],
    "no header": lambda b: struct.pack("<Q", 0) + b[8:],
    "flipped brace": lambda b: b[:8] + b"[" + b[9:],
    "flipped name": lambda b: b[:10] + b"\xff" + b[11:],
    "header of a list": lambda b: struct.pack("<Q", 2) + b"[]",
    "header without tensors": lambda b: struct.pack("<Q", 2) + b"{}",
    "zeros": lambda b: bytes(len(b)),
    "a web page": lambda b: b"<!DOCTYPE html><html>not found</html>",
    "pointer": lambda b: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "new pickle": lambda b: b"PK\x03\x04" + b,
    "old pickle": lambda b: pickle.dumps({"weight": [1.0]}),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_file_is_refused_in_one_sentence_that_names_it(kind: str, theirs: Path):
    path = theirs / "model.safetensors"
    path.write_bytes(DAMAGE[kind](path.read_bytes()))
    with pytest.raises(WeightsError) as caught:
        folder.read(theirs)
    assert str(theirs) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "said"), [("pointer", "git lfs pull"), ("empty", "is empty"), ("old pickle", "pickle")]
)
def test_usual_damage_is_told_apart(kind: str, said: str, theirs: Path):
    path = theirs / "model.safetensors"
    path.write_bytes(DAMAGE[kind](path.read_bytes()))
    with pytest.raises(WeightsError, match=said):
        folder.read(theirs)


@pytest.mark.parametrize("place", [0, 4, 8, 12, 100])
def test_flipped_byte_of_the_header_never_gives_another_model(place: int, model: DecoderModel, theirs: Path):
    path = theirs / "model.safetensors"
    data = bytearray(path.read_bytes())
    for bit in range(8):
        data[place] ^= 1 << bit
        path.write_bytes(data)
        try:
            assert same(folder.read(theirs), model)
        except GroundupError as fault:
            assert "\n" not in str(fault)
        data[place] ^= 1 << bit


def test_folder_in_the_place_of_the_file_is_refused(theirs: Path):
    (theirs / "model.safetensors").unlink()
    (theirs / "model.safetensors").mkdir()
    with pytest.raises(WeightsError, match="is a folder"):
        folder.read(theirs)


class Trap:
    """A pickle that would leave a trace if anyone opened it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "model.pkl", "model.safetensors"]
)
def test_pickle_is_refused_unopened_with_the_way_out(name: str, theirs: Path):
    (theirs / "model.safetensors").unlink()
    (theirs / name).write_bytes(pickle.dumps(Trap(theirs / "trace")))
    with pytest.raises(WeightsError, match=rf"{name} is a pickle.*save_pretrained"):
        folder.read(theirs)
    assert not (theirs / "trace").exists()


def cut(model: DecoderModel, path: Path) -> dict[str, Any]:
    folder.write_hf(model.state_dict(), spec=model.spec, folder=path, shard_bytes=3000)
    return json.loads((path / "model.safetensors.index.json").read_text())


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": 1}}']
)
def test_damaged_index_is_refused(text: str, tmp_path: Path):
    cut(build("llama"), tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(WeightsError, match=r"model.safetensors.index.json"):
        folder.read(tmp_path)


def test_index_that_leads_out_of_the_folder_is_refused(tmp_path: Path):
    index = cut(build("llama"), tmp_path)
    name = next(iter(index["weight_map"]))
    index["weight_map"][name] = "../secret.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match="expected the name of a file beside it"):
        folder.read(tmp_path)


def test_missing_part_of_the_weights_is_named(tmp_path: Path):
    index = cut(build("llama"), tmp_path)
    lost = sorted(set(index["weight_map"].values()))[1]
    (tmp_path / lost).unlink()
    with pytest.raises(WeightsError, match=lost):
        folder.read(tmp_path)


def test_part_that_lacks_what_the_index_places_there_is_named(tmp_path: Path):
    index = cut(build("llama"), tmp_path)
    name, file = next(iter(index["weight_map"].items()))
    weights = load_file(tmp_path / file)
    del weights[name]
    save_file(weights or {"other": torch.ones(1)}, tmp_path / file)
    with pytest.raises(WeightsError, match=rf"{file} lacks {name}"):
        folder.read(tmp_path)


def test_folder_without_a_description_is_refused(tmp_path: Path):
    with pytest.raises(ModelError, match=r"neither spec.json nor config.json"):
        folder.read(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "\x00", '{"kind": "Decoder"'])
def test_description_that_is_no_json_object_is_refused(text: str, theirs: Path):
    (theirs / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config.json") as caught:
        folder.read(theirs)
    assert "\n" not in str(caught.value)


def test_checksums_are_verified_where_there_are_some(model: DecoderModel, tmp_path: Path):
    folder.write(model.state_dict(), spec=model.spec, folder=tmp_path)
    manifest.write_manifest(tmp_path)
    assert same(folder.read(tmp_path), model)
    (tmp_path / "tokenizer.json").write_text("a foreign file")
    assert same(folder.read(tmp_path), model)
    path = tmp_path / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # a weight, so the file itself cannot tell
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model.safetensors has changed"):
        folder.read(tmp_path)


def test_spec_that_no_family_describes_is_not_exported(tmp_path: Path):
    model = build("of-no-family")
    with pytest.raises(SpecError, match="no Hugging Face form"):
        folder.write_hf(model.state_dict(), spec=model.spec, folder=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_weights_of_another_spec_are_not_written(tmp_path: Path):
    weights, other = build("llama").state_dict(), SPECS["tied"]
    for write in (folder.write_hf, folder.write):
        with pytest.raises(WeightsError, match="the state_dict"):
            write(weights, spec=other, folder=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_model_that_is_there_is_not_overwritten(model: DecoderModel, theirs: Path):
    before = (theirs / "model.safetensors").read_bytes()
    for write in (folder.write_hf, folder.write):
        with pytest.raises(StorageError, match="already; choose a new folder"):
            write(model.state_dict(), spec=model.spec, folder=theirs)
    assert (theirs / "model.safetensors").read_bytes() == before


def test_place_that_cannot_be_written_is_told(model: DecoderModel, tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        folder.write_hf(model.state_dict(), spec=model.spec, folder=tmp_path / "file" / "new")


def test_refusal_of_the_system_while_weights_are_written_is_told(tmp_path: Path):
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(StorageError, match=r"cannot write .*model.safetensors"):
        save({"a": torch.ones(1)}, tmp_path / "model.safetensors")


def test_weights_that_share_memory_are_written(tmp_path: Path):
    model = build("llama")
    flat = torch.cat([weight.flatten() for weight in model.state_dict().values()])
    parts = flat.split([weight.numel() for weight in model.state_dict().values()])
    weights = {n: part.view(w.shape) for (n, w), part in zip(model.state_dict().items(), parts, strict=True)}
    for write, name in ((folder.write_hf, "theirs"), (folder.write, "ours")):
        write(weights, spec=model.spec, folder=tmp_path / name)
        assert same(folder.read(tmp_path / name), model)


def test_others_may_read_what_lies_in_an_open_folder(model: DecoderModel, tmp_path: Path):
    for mode, expected in ((0o755, 0o644), (0o700, 0o600)):
        place = tmp_path / oct(mode)
        place.mkdir()
        place.chmod(mode)
        folder.write(model.state_dict(), spec=model.spec, folder=place)
        assert (place / "model.safetensors").stat().st_mode & 0o777 == expected


def test_partly_turned_heads_are_read_from_a_configuration(tmp_path: Path):
    spec = llama(width=16, layers=1, heads=2, hidden=24, vocab=11, context=8, position=RoPE(fraction=0.5))
    model: DecoderModel = Decoder.build(spec, seed=2)
    folder.write_hf(
        model.state_dict(), spec=override(spec, "layers.*.mix.mixer.position.fraction", 1.0), folder=tmp_path
    )
    config = json.loads((tmp_path / "config.json").read_text())
    del config["model_type"]  # whose class of transformers would turn all of each head
    (tmp_path / "config.json").write_text(json.dumps(config | {"partial_rotary_factor": 0.5}))
    assert same(folder.read(tmp_path), model)
