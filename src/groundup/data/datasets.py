"""The files of a dataset on the Hugging Face hub, fetched one by one as they are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from groundup.data import files
from groundup.errors import DataError, MissingExtra


def dataset_files(name: str) -> Iterator[tuple[str, Path]]:
    """Yields the name in the dataset and the place on this disk of each file that holds texts.

    Where a dataset names its splits, only the files of the training split are taken. With ``HF_HUB_OFFLINE`` set,
    these are the files that were fetched before.

    Args:
        name: ``org/name``.

    Raises:
        DataError: there is no such dataset, it has no file that is read, or the hub does not answer.
        MissingExtra: huggingface_hub is not installed.
    """
    try:
        import huggingface_hub as hub
        from huggingface_hub import constants
        from huggingface_hub.errors import HTTPError
    except ImportError as fault:
        raise MissingExtra("huggingface_hub", purpose=f"reading the dataset {name}", extra="hub") from fault
    try:
        if constants.HF_HUB_OFFLINE:
            top = Path(hub.snapshot_download(name, repo_type="dataset", local_files_only=True))
            places = {path.relative_to(top).as_posix(): path for path in files.find(top)}
            for file in _training(name, list(places)):
                yield file, places[file]
        else:
            for file in _training(name, hub.HfApi().list_repo_files(name, repo_type="dataset")):
                yield file, Path(hub.hf_hub_download(name, file, repo_type="dataset"))
    except (OSError, HTTPError, ValueError) as fault:
        if isinstance(fault, DataError):
            raise
        reason = str(fault).strip().splitlines()[0]
        raise DataError(
            f"the dataset {name} cannot be had from the Hugging Face hub ({reason}); check its name"
        ) from fault


def _training(name: str, found: list[str]) -> list[str]:
    readable = sorted(file for file in found if files.form(Path(file))[0] in files.LINES | files.TABLES)
    if not readable:
        raise DataError(f"the dataset {name} has no .parquet, .jsonl or .tsv file; choose another, or give files")
    return [file for file in readable if "train" in file] or readable
