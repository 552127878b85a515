"""Specs in files: ours as JSON or YAML, and Hugging Face's ``config.json``.

Ours have a ``kind``, or hold under ``spec`` what has one, as `groundup show MODEL --json` prints it; theirs have none.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from groundup import families
from groundup.errors import GroundupError, ModelError, one_line, writing
from groundup.families.family import Family
from groundup.files import read_limited
from groundup.model.model import Model

OURS, THEIRS = "spec.json", "config.json"
BESIDE = "generation_config.json"
ENDS = [f"{token}_token_id" for token in ("decoder_start", "eos", "forced_bos", "forced_eos")]  # of a spec's own
MOST_BYTES, MOST_BYTES_YAML = 2**25, 2**21  # of a description; YAML takes a minute for that much


def read_spec(path: Path) -> Model:
    """Returns the spec that a file describes: one of ours, or a Hugging Face configuration.

    Raises:
        ModelError: the file cannot be read as JSON or YAML.
        ConfigError: a spec of ours has a setting that does not exist or a value of another type.
        SpecError: a configuration has a key that no family knows, or sizes that do not fit together.
    """
    data = read_mapping(path)
    if isinstance(data.get("spec"), dict):
        data = data["spec"]
    if "kind" not in data and path.suffix != ".json":
        raise ModelError(f"{path} has no kind; expected a spec, as `groundup show MODEL --json` prints it")
    if path.name == THEIRS:
        data |= {name: token for name, token in read_tokens(path.parent).items() if name in ENDS}
    try:
        return Model.from_dict(data) if "kind" in data else families.family_of_config(data).spec(data)
    except GroundupError as fault:
        raise type(fault)(f"{path}: {fault}") from fault


def read_tokens(folder: Path) -> dict[str, Any]:
    """Returns the ids of tokens that config.json and generation_config.json name; the latter has the last word.

    Raises:
        ModelError: one of them cannot be read as JSON, or holds anything but a mapping.
    """
    said: dict[str, Any] = {}
    for file in (folder / THEIRS, folder / BESIDE):
        if file.is_file():
            said |= {name: value for name, value in read_mapping(file).items() if value is not None}
    return {name: value for name, value in said.items() if name.endswith("_token_id")}


def family_of_file(path: Path) -> Family:
    """Returns the family of a Hugging Face configuration.

    Raises:
        ModelError: the file cannot be read as JSON.
        SpecError: no family knows its model_type.
    """
    return families.family_of_config(read_mapping(path))


def write_json(data: dict[str, Any], path: Path) -> None:
    """Writes plain data as readable JSON.

    Raises:
        StorageError: the file cannot be written.
    """
    with writing(path):
        path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def read_mapping(path: Path) -> dict[str, Any]:
    """Returns what a file in JSON or YAML says.

    Raises:
        ModelError: it cannot be read, or holds anything but a mapping.
    """
    try:
        as_json = path.suffix == ".json"
        text = read_limited(path, most_bytes=MOST_BYTES if as_json else MOST_BYTES_YAML).decode("utf-8-sig")
        data = json.loads(text) if as_json else yaml.safe_load(text)
    except UnicodeDecodeError as fault:
        raise ModelError(f"{path} is not text in UTF-8; expected a spec or a configuration") from fault
    except OSError as fault:
        raise ModelError(f"{path} cannot be read: {fault.strerror}; check the file and its permissions") from fault
    except (ValueError, RecursionError, yaml.YAMLError) as fault:
        kind = "JSON" if path.suffix == ".json" else "YAML"
        raise ModelError(f"{path} is not {kind} ({one_line(fault)}); mend or replace it") from fault
    if not isinstance(data, dict):
        raise ModelError(f"{path} holds {type(data).__name__} data; expected a mapping of settings")
    return data
