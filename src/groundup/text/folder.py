"""The files in which a tokenizer lies: ours, a Hugging Face folder, or a ``tokenizer.json`` alone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.errors import TextError, nearest
from groundup.files import read_limited

Json = Any  # what json.loads returns

TOKENIZER, CONTRACT, TEMPLATE, CONFIG = (
    "tokenizer.json",
    "contract.json",
    "chat_template.jinja",
    "tokenizer_config.json",
)
FILES = (TOKENIZER, CONTRACT, TEMPLATE, CONFIG)  # what `Tokenizer.save` writes

MOST_BYTES, MOST_BYTES_BESIDE = 2**30, 2**25  # of a tokenizer.json, and of the files beside it

# Tried in this order when no file names the token.
USUAL_ENDS = ("<|end|>", "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[SEP]")
USUAL_BEGINS = ("<|begin_of_text|>", "<s>", "<bos>", "[CLS]")
USUAL_MASKS = ("[MASK]", "<mask>", "<|mask|>", "<|mdm_mask|>")


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the files say.

    Attributes:
        path: the tokenizer.json.
        definition: its text.
        contract: our contract; None if there is none.
        chat_template: the template; None if there is none.
        begin: names or ids of the begin token, best first.
        end: names or ids of the end token, best first.
    """

    path: Path
    definition: str
    contract: Mapping[str, Json] | None
    chat_template: str | None
    begin: tuple[str | int, ...]
    end: tuple[str | int, ...]


def read(path: Path) -> Found:
    """Returns what a tokenizer.json and the files beside it say.

    Raises:
        TextError: there is no tokenizer, or one of the files cannot be read.
    """
    path = _locate(path)
    if path.name != TOKENIZER:
        return Found(
            path=path, definition=_text(path), contract=None, chat_template=None, begin=USUAL_BEGINS, end=USUAL_ENDS
        )
    folder = path.parent
    configs = {name: _mapping(folder / name) for name in (CONFIG, "special_tokens_map.json")}
    models = {name: _mapping(folder / name) for name in ("generation_config.json", "config.json")}
    contract = folder / CONTRACT
    template = folder / TEMPLATE
    return Found(
        path=path,
        definition=_text(path),
        contract=_mapping(contract) if contract.exists() else None,
        chat_template=_text(template) if template.exists() else _template(configs[CONFIG]),
        begin=tuple(_named("bos_token", configs, models, usual=USUAL_BEGINS)),
        end=tuple(_named("eos_token", configs, models, usual=USUAL_ENDS)),
    )


def _locate(path: Path) -> Path:
    if os.path.isfile(path):  # says no, where pathlib raises, of names that no file could have
        return path
    if not os.path.exists(path):
        near = nearest(path.name, os.listdir(path.parent)) if os.path.isdir(path.parent) else ""
        hint = near or "give a tokenizer.json or a folder that holds one"
        raise TextError(f"{str(path)[:200]} does not exist; {hint}")
    for inside in (path / TOKENIZER, path / "tokenizer" / TOKENIZER):  # the second is a run's
        if inside.is_file():
            return inside
    others = [name for name in ("tokenizer.model", "vocab.json", "vocab.txt") if (path / name).exists()]
    has = f"it has {others[0]}, which is another format; " if others else ""
    how = "write it with transformers' AutoTokenizer.from_pretrained(...).save_pretrained(...)" if others else ""
    raise TextError(f"{path} holds no {TOKENIZER}; {has}{how or 'give the folder of a model or of a tokenizer'}")


def _text(path: Path, *, most_bytes: int = MOST_BYTES) -> str:
    try:
        return read_limited(path, most_bytes=most_bytes).decode("utf-8")
    except UnicodeDecodeError as fault:
        raise TextError(f"{path} is not UTF-8 at byte {fault.start}; expected a text file") from fault
    except OSError as fault:
        raise TextError(f"{path} cannot be read: {fault.strerror}; check the file and its permissions") from fault


def _mapping(path: Path) -> Mapping[str, Json]:
    if not path.is_file():
        return {}
    try:
        data = json.loads(_text(path, most_bytes=MOST_BYTES_BESIDE))
    except (json.JSONDecodeError, RecursionError) as fault:
        raise TextError(f"{path} is not JSON ({fault}); repair or remove it") from fault
    if not isinstance(data, dict):
        raise TextError(f"{path} holds a {type(data).__name__}; expected a JSON object")
    return data


def _template(config: Mapping[str, Json]) -> str | None:
    """The chat template of a tokenizer_config.json: a text, or a list of named ones with a default."""
    template = config.get("chat_template")
    if isinstance(template, list):
        named = [item for item in template if isinstance(item, dict)]
        template = next((item.get("template") for item in named if item.get("name") == "default"), None)
    if not isinstance(template, str | None):
        raise TextError(f"the chat_template in {CONFIG} is a {type(template).__name__}; expected text, or remove it")
    return template


def _named(
    key: str,
    configs: Mapping[str, Mapping[str, Json]],
    models: Mapping[str, Mapping[str, Json]],
    usual: tuple[str, ...],
) -> Iterator[str | int]:
    """Yields the candidates for a token, best first; a file that says null says that there is none."""
    for config in configs.values():
        value = config.get(key)
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            yield value
        if value is None and key in config:
            return
    for config in models.values():
        value = config.get(f"{key}_id")
        yield from (value if isinstance(value, list) else [value] if isinstance(value, int) else [])
    yield from usual
