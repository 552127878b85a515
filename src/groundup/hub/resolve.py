"""What MODEL names: a preset, a folder, a file or a hub id, as one token that every verb takes."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from groundup.errors import ModelError, nearest
from groundup.families import PRESETS
from groundup.hub import folder as folders
from groundup.hub import manifest
from groundup.hub.checkpoints import CHECKPOINTS, latest_of
from groundup.hub.download import ID, Repo, fetch
from groundup.hub.own_file import OWN, read_own
from groundup.hub.spec_file import OURS, read_spec
from groundup.hub.tensors import PICKLES, pickle_refused
from groundup.model.model import Model, ModelModule

Kind = Literal["spec", "preset", "file", "run", "checkpoint", "huggingface", "hub"]

TOKENIZER = "tokenizer"


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a MODEL is.

    Attributes:
        name: what was given, as text.
        kind: what it turned out to be.
        spec: the model's description.
        weights: the folder that its weights come from, where `weights` puts those of the hub; None where it has none.
        tokenizer: the folder that holds its tokenizer.json; None where it has none.
        repo: where on the hub it comes from, at a fixed commit where that is known; None for others.
    """

    name: str
    kind: Kind
    spec: Model
    weights: Path | None = None
    tokenizer: Path | None = None
    repo: Repo | None = None


def find(model: str | Path | Model | ModelModule, *, revision: str | None = None, offline: bool = False) -> Found:
    """Returns what a MODEL is; of a hub id, only what describes it is fetched.

    Args:
        model: a preset's name, a folder, a file, ``FILE.py:NAME`` (see `own_file`), a hub id (``organisation/name``,
            ``organisation/name@revision``), a spec, or the model that one built. A name with a dot or a slash in
            front, or a `Path`, is always a path.
        revision: the branch, tag or commit of a hub id; None means the main branch.
        offline: whether a hub id may only come from the cache.

    Raises:
        ModelError: there is no such model, and the message names the nearest; or its folder cannot be read.
        SpecError: its configuration has a key that no family knows, or sizes that do not fit together.
        ConfigError: its spec has a setting that does not exist or a value of another type.
        WeightsError: it is a pickle.
        CheckpointError: a checksum does not hold.
    """
    if isinstance(model, ModelModule):
        model = model.spec
    if isinstance(model, Model):
        return Found(name="a spec", kind="spec", spec=model)
    if not isinstance(model, str | Path):
        raise ModelError(f"{str(model)[:80]} is no model; give a spec, a name, a path or a hub id")
    name = str(model)
    path = Path(os.path.expanduser(name))
    own = OWN.fullmatch(name)
    if own and (own["name"] or os.path.isfile(path)):
        return Found(name=name, kind="file", spec=read_own(Path(os.path.expanduser(own["file"])), own["name"]))
    match = ID.fullmatch(name) if isinstance(model, str) and not os.path.isdir(path.parent) else None
    if match:
        return _on_hub(Repo(id=match["id"], revision=revision or match["revision"], offline=offline), name)
    if revision is not None:
        raise ModelError(f"{name!r} is no hub id, so revision={revision!r} means nothing; leave it out")
    if isinstance(model, str) and name in PRESETS:
        return Found(name=name, kind="preset", spec=PRESETS[name]())
    # os.path answers no, where pathlib raises, for names that no file could have and for folders that are closed.
    if name and os.path.isdir(path):
        return _in_folder(path, name)
    if os.path.isfile(path):
        return _in_file(path, name)
    raise _unknown(name, path)


def spec(model: str | Path | Model | ModelModule, *, revision: str | None = None, offline: bool = False) -> Model:
    """Returns the spec of a MODEL; the arguments and errors are those of `find`."""
    return find(model, revision=revision, offline=offline).spec


def weights(found: Found, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> ModelModule:
    """Returns the model with its weights, in evaluation mode.

    Args:
        found: what `find` returned.
        dtype: of the weights; None means the one in which most of them are stored.
        device: where they go.

    Raises:
        ModelError: it has no weights, or the hub does not give them.
        WeightsError: the weights are missing, damaged, or of another model.
        CheckpointError: a file is not what the checksums say.
    """
    if found.repo is not None and not any(fetch(found.repo, weights=True).glob("*.safetensors")):
        raise ModelError(f"{found.name} on the hub has no safetensors, or its weights only as pickles; use a copy")
    if found.weights is None:
        raise ModelError(
            f"{found.name} describes a model but has no weights yet; train it, or give a checkpoint, a Hugging Face "
            "folder or a hub id"
        )
    return folders.read(found.weights, dtype=dtype, device=device)


def _in_folder(path: Path, name: str) -> Found:
    if os.path.isdir(path / CHECKPOINTS):
        return _in_run(path, name)
    files = _files_of(path)
    described = folders.spec_file(path)
    if described is None:
        pickles = [file for file in files if file.suffix in PICKLES]
        if pickles:
            raise pickle_refused(pickles[0])
        near = _nearby(path.name, within=path)
        raise ModelError(f"{path} holds no model (no spec.json or config.json); {near or 'give the folder of a model'}")
    if os.path.exists(path / manifest.MANIFEST):
        manifest.verify(path, only=[described.name])
    kind = "checkpoint" if described.name == OURS else "huggingface"
    weights = path if any(file.suffix in (".safetensors", *PICKLES) for file in files) else None
    return Found(name=name, kind=kind, spec=read_spec(described), weights=weights, tokenizer=_tokenizer_of(path))


def _files_of(path: Path) -> list[Path]:
    try:
        return sorted(path.iterdir())
    except OSError as fault:
        raise ModelError(f"{path} cannot be read: {fault.strerror}; check its permissions") from fault


def _in_run(path: Path, name: str) -> Found:
    latest = latest_of(path / CHECKPOINTS)
    if latest is not None:
        return replace(_in_folder(latest, name), kind="run")
    if not os.path.isfile(path / OURS):
        raise ModelError(f"{path} is a run without a checkpoint and without spec.json; give another, or train it anew")
    return Found(name=name, kind="run", spec=read_spec(path / OURS), tokenizer=_holding_tokenizer(path / TOKENIZER))


def _tokenizer_of(path: Path) -> Path | None:
    """The tokenizer in a model's folder, below it, or, for a run's checkpoint, in the run."""
    places = [path, path / TOKENIZER]
    if path.resolve().parent.name == CHECKPOINTS:
        places.append(path.resolve().parent.parent / TOKENIZER)
    return next((place for place in places if _holding_tokenizer(place)), None)


def _holding_tokenizer(place: Path) -> Path | None:
    return place if os.path.isfile(place / "tokenizer.json") else None


def _in_file(path: Path, name: str) -> Found:
    if path.suffix in (".json", ".yaml", ".yml"):
        return Found(name=name, kind="file", spec=read_spec(path))
    if path.suffix in PICKLES:
        raise pickle_refused(path)
    if path.suffix == ".gguf":
        raise ModelError(
            f"{path} is GGUF and this version reads safetensors; convert it with transformers: "
            "AutoModelForCausalLM.from_pretrained(FOLDER, gguf_file=NAME).save_pretrained(NEW_FOLDER)"
        )
    if path.suffix == ".safetensors":
        raise ModelError(f"{path} holds weights without a description; give the folder that has its config.json too")
    raise ModelError(f"{path} is no model; expected a folder, or a spec or configuration in .json or .yaml")


def _on_hub(repo: Repo, name: str) -> Found:
    path = fetch(repo, weights=False)
    if folders.spec_file(path) is None:
        raise ModelError(f"{repo} on the hub has no config.json; choose a model in the form of transformers")
    pinned = replace(repo, revision=path.name)  # the cache names its folders by commit
    return replace(_in_folder(path, name), kind="hub", repo=pinned, weights=path)


def _unknown(name: str, path: Path) -> ModelError:
    nearby = _nearby(path.name, within=path.parent)
    if path.suffix in (".json", ".yaml", ".yml", ".py"):
        return ModelError(f"the file {name[:80]} is not there; {nearby or 'give the path of one that is'}")
    said = "; ".join(text for text in (nearest(name, PRESETS), nearby) if text)
    return ModelError(
        f"{name[:80]!r} is no preset, folder, file or hub id; {said or 'see `groundup list models` for the presets'}"
    )


def _nearby(name: str, *, within: Path) -> str:
    """A few folders with models around a place, the most similar first."""
    if not os.path.isdir(within):
        return ""
    around = {str(path): path.name for path in _models_in(within)}
    order = sorted(around, key=lambda path: -difflib.SequenceMatcher(None, name, around[path]).ratio())
    return f"folders with a model nearby: {', '.join(order[:4])}" if order else ""


def _models_in(place: Path) -> Iterator[Path]:
    for path in (*place.glob("*/"), *place.glob("runs/*/")):
        if os.path.isdir(path / CHECKPOINTS) or folders.spec_file(path) is not None:
            yield path
