"""A model and its tokenizer as one folder on disk, complete or absent.

spec.json   model.safetensors   tokenizer/{tokenizer.json, chat_template.jinja, contract.json}   MANIFEST.sha256
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from groundup.errors import StorageError, writing
from groundup.hub import folder as folders
from groundup.hub.manifest import MANIFEST, write_manifest
from groundup.hub.spec_file import OURS
from groundup.hub.tensors import ONE_FILE
from groundup.model.decoder import DecoderModel
from groundup.text.tokenizer import Tokenizer

TOKENIZER = "tokenizer"
PARTS = {OURS, ONE_FILE, TOKENIZER, MANIFEST}


def save(model: DecoderModel, folder: Path, *, tokenizer: Tokenizer | None, force: bool = False) -> None:
    """Writes a model, its tokenizer and their checksums beside the folder, then puts them in its place.

    Args:
        model: on any device.
        folder: where to; a new or empty folder.
        tokenizer: None where the model works on ids alone.
        force: replace a model that is there already, whose folder holds nothing else.

    Raises:
        StorageError: the folder holds a model and ``force`` is not set, holds anything else, or cannot be written.
    """
    folder = folder.absolute()
    _check_free(folder, force=force)
    new, old = (folder.with_name(f".{folder.name}.{kind}-{os.getpid()}") for kind in ("new", "old"))
    with writing(folder):
        try:
            folders.write_own(model.state_dict(), spec=model.spec, folder=new)
            if tokenizer is not None:
                tokenizer.save(new / TOKENIZER)
            write_manifest(new)
            _put(new, folder, old=old)
        finally:
            with suppress(FileNotFoundError):
                shutil.rmtree(new)
    shutil.rmtree(old, ignore_errors=True)


def _check_free(folder: Path, *, force: bool) -> None:
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if there and there <= PARTS and not force:
        raise StorageError(f"{folder} holds a model already; choose a new folder, or give force=True to replace it")
    if there - PARTS:  # a run, or files of the user's own
        raise StorageError(f"{folder} holds {min(there - PARTS)}, which is no part of a model; choose a new folder")
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"{folder} is a file; choose a new folder")


def _put(new: Path, folder: Path, *, old: Path) -> None:
    """Moves a complete folder into its place; what was there moves aside, and comes back if that fails."""
    if folder.exists():
        folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        if old.exists():
            old.rename(folder)
        raise
