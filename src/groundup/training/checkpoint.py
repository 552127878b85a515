"""Checkpoints: what a run needs to go on as if it had never stopped, complete or absent, never half.

    checkpoints/step-000500/spec.json                     the model
    checkpoints/step-000500/model.safetensors             the weights and buffers, tied ones once
    checkpoints/step-000500/config.json                   the model in the words of transformers, if it has such
    checkpoints/step-000500/state/optimizer.safetensors   the optimizer's state, named after the parameters
    checkpoints/step-000500/state/loop.json               where the loop was
    checkpoints/step-000500/MANIFEST.sha256               size and hash of each file; `sha256sum -c` reads it too
    checkpoints/latest                                    the name of the checkpoint to go on from

With a config.json, the weights bear the names that transformers gives them (and lie in several files with an index
beyond 5 GB), so that it opens a checkpoint as a model of its own.

A checkpoint is written under a hidden name, brought to the disk, and renamed; only then does ``latest`` point to it
and are older ones removed. Nothing is ever pickled: a pickle can run code when it is read.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundup import files
from groundup.errors import CheckpointError, writing
from groundup.hub import folder as folders
from groundup.hub import tensors
from groundup.hub.checkpoints import LATEST, checkpoints_in, latest_of, name_of, step_of
from groundup.hub.manifest import verify_whole, write_manifest
from groundup.optim.joint import JointOptimizer, load_state_tensors, state_tensors
from groundup.specs import Json, Spec

STATE, LOOP = "state/optimizer.safetensors", "state/loop.json"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A complete checkpoint on disk, verified when it was opened."""

    path: Path
    step: int
    spec: Spec

    @classmethod
    def open(cls, path: Path) -> Checkpoint:
        """Returns the checkpoint in this folder after comparing every file with the manifest.

        Raises:
            CheckpointError: a file is missing, changed, cut, foreign or a pickle. The message names it, and the
                newest checkpoint beside it that is intact.
        """
        try:
            verify_whole(path)
            return cls(path=path, step=step_of(path), spec=Spec.from_dict(_read_json(path / "spec.json")))
        except CheckpointError as fault:
            raise CheckpointError(f"{fault}; {_way_out(path)}") from None

    def loop(self) -> dict[str, Json]:
        """Returns the loop's values as they were saved."""
        return _read_json(self.path / LOOP)

    def restore(self, model: nn.Module, optimizer: JointOptimizer | None = None) -> dict[str, Json]:
        """Copies the weights and the optimizer's state into place; returns the loop's values as they were saved.

        Raises:
            CheckpointError: the checkpoint is that of another model or another optimizer.
            WeightsError: a file of tensors was changed since the checkpoint was opened.
        """
        saved, own = folders.read_weights(self.path, spec=self.spec), unique_tensors(model)
        if odd := sorted(saved.keys() ^ own.keys()):
            side = "the checkpoint" if odd[0] in saved else "the model"
            raise CheckpointError(f"{self.path} is of another model: only {side} has {odd[0]}; build it from spec.json")
        for name, tensor in own.items():
            theirs = saved[name]
            if (theirs.shape, theirs.dtype) != (tensor.shape, tensor.dtype):
                raise CheckpointError(
                    f"{self.path} is of another model: {name} is {_shape(theirs)} there and {_shape(tensor)} here; "
                    "build it from spec.json"
                )
        if optimizer is not None:
            load_state_tensors(optimizer, tensors.load(self.path / STATE))
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(saved[name])
        return self.loop()


def save(
    folder: Path,
    step: int,
    *,
    model: nn.Module,
    spec: Spec,
    optimizer: JointOptimizer,
    loop: dict[str, Json],
    keep: int = 2,
) -> Path:
    """Writes the checkpoint of this step into ``folder`` and returns its path; a crash leaves the ones before.

    Ctrl-C waits until the checkpoint is complete; a second one gives the checkpoint up at once.

    Args:
        folder: the run's ``checkpoints`` folder.
        step: steps done; a checkpoint of the same step is replaced.
        model: on any device.
        spec: what builds the model.
        optimizer: its state lies beside the weights.
        loop: what else the loop needs to go on; plain data.
        keep: how many checkpoints to leave, this one among them; at least 1.

    Raises:
        StorageError: the disk is full or the folder cannot be written; nothing half-written remains.
    """
    path = folder / name_of(step)
    with files.interrupt_deferred(), writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _recover(folder)
        files.remove_abandoned(folder, names="*")
        with files.replacing(path) as new:
            folders.write(unique_tensors(model), spec=spec, folder=new)
            (new / STATE).parent.mkdir()
            tensors.save(state_tensors(optimizer), new / STATE)
            (new / LOOP).write_text(json.dumps(loop, indent=1), encoding="utf-8")
            write_manifest(new)
        files.atomic_write(folder / LATEST, f"{path.name}\n")
        for old in [other for other in checkpoints_in(folder) if other != path][max(keep, 1) - 1 :]:
            files.remove(old.rename(files.beside(old)))
    return path


def load_latest(folder: Path) -> Checkpoint | None:
    """Returns the checkpoint to go on from (see `latest_of`), verified; None if there is none.

    Raises:
        CheckpointError: that checkpoint is damaged; an older one is never taken without being asked for.
    """
    _recover(folder)
    chosen = latest_of(folder)
    return None if chosen is None else Checkpoint.open(chosen)


def unique_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Returns the parameters and persistent buffers of a model, tied ones once, under their first name."""
    first: dict[Tensor, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        first.setdefault(tensor, name)
    return {name: tensor.detach() for tensor, name in first.items()}


def _recover(folder: Path) -> None:
    files.put_back(folder, names="step-*")


def _shape(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as fault:
        raise CheckpointError(f"{path} is not JSON: {fault}; use another checkpoint") from fault


def _way_out(path: Path) -> str:
    """Returns what can be done about a damaged checkpoint: the newest other one that is intact."""
    for other in checkpoints_in(path.parent):
        if other != path:
            with suppress(CheckpointError):
                verify_whole(other)
                return f"{other.name} is intact: remove {path.name} to go on from it"
    return "no other checkpoint beside it is intact: start the run anew"
