"""Folders that hold a model: ours (spec.json), Hugging Face's (config.json) or both, with weights as safetensors.

What `write` writes is both wherever a family of transformers can say all that the spec says: transformers reads
config.json and the weights by its names, and we read spec.json and map the names back, bit by bit.

Reading compares names and shapes from the files' headers with those of the model on the meta device before it reads
a weight, and then takes the weights one rule at a time, so that the whole is never in memory twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup import rules
from groundup.errors import ModelError, SpecError, StorageError, WeightsError, writing
from groundup.families import family_of
from groundup.hub import manifest
from groundup.hub.match import Naming, compare, match, shapes
from groundup.hub.spec_file import BESIDE, OURS, THEIRS, family_of_file, read_spec, write_json
from groundup.hub.tensors import INDEX, KINDS, ONE_FILE, Lazy, Stored, load, save, stored_in, weight_files
from groundup.model.model import Model, ModelModule
from groundup.specs import Spec

SHARD_BYTES = 5_000_000_000  # what transformers cuts large files into


def spec_file(folder: Path) -> Path | None:
    """Returns the file in a folder that describes a model, or None."""
    return next((folder / name for name in (OURS, THEIRS) if os.path.isfile(folder / name)), None)


def read(folder: Path, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> ModelModule:
    """Returns the model of a folder, in evaluation mode.

    Args:
        folder: a checkpoint of ours or a Hugging Face folder; checksums are verified where it has them.
        dtype: of the weights; None means the one in which most of them are stored.
        device: where the weights go.

    Raises:
        ModelError: no file in the folder describes a model.
        WeightsError: the weights are missing, damaged, or of another model.
        CheckpointError: a file is not what the checksums say.
    """
    described = spec_file(folder)
    if described is None:
        raise ModelError(f"{folder} holds neither {OURS} nor {THEIRS}; give the folder of a model")
    if (folder / manifest.MANIFEST).exists():
        manifest.verify(folder, only=[path.name for path in (described, *weight_files(folder))])
    stored = stored_in(folder)
    spec = read_spec(described)
    model = shapes(family_of_file(described).fit(spec, stored.keys()) if described.name == THEIRS else spec)
    naming = _naming(described, model, stored)
    found = match(stored, model, naming, where=str(folder))
    dtype = dtype or _usual_dtype(found.values())
    ours = rules.read_each(Lazy(found), naming.rules, layers=model.spec.depth)
    kept = {name for name, _ in model.named_buffers()}  # are no weights: what was measured in training stays exact
    move = partial(torch.Tensor.to, device=device, copy=True, memory_format=torch.contiguous_format)
    weights = {name: move(t, dtype=t.dtype if name in kept else dtype) for name, t in ours}
    model.load_state_dict(weights, assign=True)
    return model.eval()


def read_weights(folder: Path, *, spec: Spec) -> Mapping[str, Tensor]:
    """Returns the weights of a folder that `write` wrote, by our names, mapped from its files: copy what shall stay.

    Raises:
        WeightsError: the files are missing or damaged, or hold the weights of another spec.
    """
    stored = {name: tensor for file in weight_files(folder) for name, tensor in load(file).items()}
    match spec:
        case Model() if (folder / THEIRS).exists() and (family := family_of(spec)) is not None:
            return rules.read(stored, family.rules(spec), layers=spec.depth)
    return stored


def write(weights: Mapping[str, Tensor], *, spec: Spec, folder: Path, tokens: Mapping[str, Any] | None = None) -> None:
    """Writes a folder of ours, which transformers opens too if one of its architectures says all that the spec says.

    Args:
        weights: a model's tensors by our names, tied ones once.
        spec: what builds the model.
        folder: where to; it must not hold a model yet.
        tokens: ids by the names of config.json, as `write_hf` takes them.

    Raises:
        WeightsError: the weights are not those of the spec.
        StorageError: the folder holds a model, or cannot be written.
    """
    match spec:
        case Model() if family_of(spec) is not None:
            write_hf(weights, spec=spec, folder=folder, tokens=tokens)
        case _:
            _prepare(folder)
            save({name: _portable(tensor, None) for name, tensor in weights.items()}, folder / ONE_FILE)
            known = {name: token for name, token in (tokens or {}).items() if token is not None}
            if known:
                write_json(known, folder / BESIDE)
    write_json(spec.to_dict(), folder / OURS)


def write_hf(
    weights: Mapping[str, Tensor],
    *,
    spec: Model,
    folder: Path,
    dtype: torch.dtype | None = None,
    tokens: Mapping[str, Any] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes a folder that transformers opens.

    Args:
        weights: a model's ``state_dict()``.
        spec: the model's spec.
        folder: where to; it must not hold a model yet.
        dtype: of the written weights; None leaves them as they are.
        tokens: ids by the names of config.json, bos_token_id and the like, for those that the spec does not say;
            unnamed ones are written as unknown.
        shard_bytes: weights beyond this go to several files with an index.

    Raises:
        SpecError: no family of transformers can say all that the spec says.
        WeightsError: the weights are not those of the spec.
        StorageError: the folder holds a model, or cannot be written.
    """
    family = family_of(spec)
    if family is None:
        raise SpecError(
            "no architecture of transformers says all that this spec says, so it has no Hugging Face form; "
            "write it in the form of groundup"
        )
    expected = shapes(spec).state_dict()
    compare({name: tensor.shape for name, tensor in weights.items()}, expected, where="the state_dict")
    _prepare(folder)
    made = rules.write_each(weights, family.rules(spec), layers=spec.depth)
    theirs = ((name, _portable(tensor, dtype)) for name, tensor in made)
    sizes = rules.write(expected, family.rules(spec), layers=spec.depth)
    _save_shards(theirs, folder, files=_plan(sizes, weights, dtype, shard_bytes))
    unknown = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    kind = str(dtype or next(iter(weights.values())).dtype).removeprefix("torch.")
    write_json(unknown | dict(tokens or {}) | family.config(spec) | {"dtype": kind}, folder / THEIRS)


def _naming(described: Path, model: ModelModule, stored: Mapping[str, Stored]) -> Naming:
    if described.name == OURS and stored.keys() >= model.state_dict().keys():
        return Naming.own(model)
    family = family_of_file(described) if described.name == THEIRS else family_of(model.spec)
    if family is None:
        raise WeightsError(f"{described.parent} does not hold the weights that {OURS} describes")
    return Naming(rules=family.rules(model.spec), family=family)


def _usual_dtype(stored: Iterable[Stored]) -> torch.dtype:
    counts = dict.fromkeys(KINDS.values(), 0)
    for tensor in stored:
        counts[tensor.dtype] += torch.Size(tensor.shape).numel()
    return max(counts, key=lambda dtype: counts[dtype])


def _portable(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """The tensor on the CPU in memory that holds nothing else, as files do; copied only where it is not so yet."""
    tensor = tensor.detach().to("cpu", dtype or tensor.dtype).contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def _prepare(folder: Path) -> None:
    """Makes the folder; a model that is there already stays as it is."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    there = [name for name in (OURS, THEIRS, ONE_FILE, INDEX) if (folder / name).exists()]
    if there:
        raise StorageError(f"{folder} holds {there[0]} already; choose a new folder")


def _plan(
    sizes: Mapping[str, Tensor], weights: Mapping[str, Tensor], dtype: torch.dtype | None, shard_bytes: int
) -> list[list[str]]:
    """Which tensors go to which file, in order."""
    width = max((dtype or t.dtype).itemsize for t in weights.values())
    files: list[list[str]] = [[]]
    filled = 0
    for name, shape in sizes.items():
        size = shape.numel() * width
        if files[-1] and filled + size > shard_bytes:
            files.append([])
            filled = 0
        files[-1].append(name)
        filled += size
    return files


def _save_shards(tensors: Iterable[tuple[str, Tensor]], folder: Path, *, files: list[list[str]]) -> None:
    """Saves tensors that come in the order of ``files``, holding those of one file at a time."""
    stream = iter(tensors)
    count, total, places = len(files), 0, {}
    for i, names in enumerate(files):
        file = ONE_FILE if count == 1 else f"model-{i + 1:05}-of-{count:05}.safetensors"
        shard = dict(next(stream) for _ in names)
        save(shard, folder / file)
        total += sum(t.nbytes for t in shard.values())
        places |= dict.fromkeys(shard, file)
    if count > 1:
        write_json({"metadata": {"total_size": total}, "weight_map": places}, folder / INDEX)
