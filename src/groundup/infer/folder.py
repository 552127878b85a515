"""A model and its tokenizer as one folder on disk, complete or absent.

What lies in it beside spec.json, config.json and the weights (see hub/folder.py) are the tokenizer's files, where
transformers finds them, what an encoder says of sentences, and MANIFEST.sha256.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

from groundup import files
from groundup.errors import StorageError
from groundup.hub import folder as folders
from groundup.hub import sentences
from groundup.hub.frame import NO_FRAME, Frame
from groundup.hub.manifest import MANIFEST, write_manifest
from groundup.hub.spec_file import BESIDE, OURS, THEIRS
from groundup.hub.tensors import INDEX, ONE_FILE
from groundup.model.model import ModelModule
from groundup.text import folder as texts
from groundup.text.tokenizer import Tokenizer

PARTS = {OURS, THEIRS, BESIDE, ONE_FILE, INDEX, MANIFEST, *texts.FILES, *sentences.FILES}
PIECES = "model-*-of-*.safetensors"


def save(
    model: ModelModule,
    folder: Path,
    *,
    tokenizer: Tokenizer | None,
    frame: Frame = NO_FRAME,
    force: bool = False,
    beside: Callable[[Path], None] = lambda _: None,
) -> None:
    """Writes a model, its tokenizer and their checksums beside the folder, then puts them in its place.

    Args:
        model: on any device.
        folder: where to; a new or empty folder.
        tokenizer: None where the model works on ids alone.
        frame: the ids of begins, ends and padding, where they are not the tokenizer's.
        force: replace a model that is there already, whose folder holds nothing else.
        beside: writes what else the folder says.

    Raises:
        StorageError: the folder holds a model and ``force`` is not set, holds anything else, or cannot be written.
    """
    folder = folder.absolute()
    _check_free(folder, force=force)
    tokens = {} if tokenizer is None else {"bos_token_id": tokenizer.begin, "eos_token_id": tokenizer.end}
    tokens |= frame.named()
    with files.replacing(folder) as new:
        folders.write(model.state_dict(), spec=model.spec, folder=new, tokens=tokens)
        if tokenizer is not None:
            tokenizer.save(new)
        beside(new)
        write_manifest(new)


def _check_free(folder: Path, *, force: bool) -> None:
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    strange = {name for name in there - PARTS if not fnmatch(name, PIECES)}
    if strange:  # a run, or files of the user's own
        raise StorageError(f"{folder} holds {min(strange)}, which is no part of a model; choose a new folder")
    if there and not force:
        raise StorageError(f"{folder} holds a model already; choose a new folder, or give force=True to replace it")
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"{folder} is a file; choose a new folder")
