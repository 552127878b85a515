"""A tokenizer: text to ids and back, with its special tokens, its chat template and a contract that pins them.

The work is done by Hugging Face's `tokenizers`. What is added here is what a model must rely on: one meaning of
``encode`` (text is text, also where it spells the name of a special token), one end and one begin token, and a
contract, so that a model and its corpus notice when the tokenizer beside them is not the one they were made with.

Left out: formats other than ``tokenizer.json``.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from operator import index
from pathlib import Path
from typing import Any, SupportsIndex

import tokenizers

from groundup.errors import TextError, writing
from groundup.files import as_path
from groundup.text import folder as sidecars
from groundup.text.chat import render

Json = Any  # what json.loads returns


class Tokenizer:
    """Text to token ids and back.

    Attributes:
        definition: the text of its ``tokenizer.json``.
        begin: the id of the token that opens a text; None if there is none.
        end: the id of the token that ends a document; None if there is none.
        chat_template: the Jinja template that `chat` renders; None if there is none.
    """

    def __init__(
        self,
        definition: str,
        *,
        begin: int | None = None,
        end: int | None = None,
        chat_template: str | None = None,
    ) -> None:
        self.definition = definition
        self._plain = _backend(definition)
        self._plain.encode_special_tokens = True
        self.begin = begin
        self.end = end
        self.chat_template = chat_template
        for id in (begin, end):
            if id is not None:
                self.name_of(id)

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Reads a ``tokenizer.json``, or a folder that holds one with the files that tell about it.

        Begin, end and template come from our ``contract.json`` if there is one, else from the files of a Hugging
        Face folder, else from the usual names of such tokens.

        Raises:
            TextError: no tokenizer there, one that cannot be read, or one that breaks its contract.
        """
        found = sidecars.read(as_path(path))
        try:
            tokenizer = cls(found.definition, chat_template=found.chat_template)
        except TextError as fault:
            raise TextError(f"{found.path}: {fault}") from fault
        if found.contract is None:
            tokenizer.begin = tokenizer._first_known(found.begin)
            tokenizer.end = tokenizer._first_known(found.end)
            return tokenizer
        tokenizer.begin, tokenizer.end = found.contract.get("begin"), found.contract.get("end")
        changed = _differences(found.contract, tokenizer.contract())
        if changed:
            raise TextError(
                f"{found.path} is not the tokenizer that {sidecars.CONTRACT} beside it describes: {', '.join(changed)} "
                f"changed; put the original files back, or delete {sidecars.CONTRACT} to accept the new ones"
            )
        return tokenizer

    def save(self, folder: str | Path) -> None:
        """Writes ``tokenizer.json``, ``contract.json``, and ``chat_template.jinja`` if there is a template.

        Beside them lies ``tokenizer_config.json``, from which transformers knows that no class of its own is meant.

        Raises:
            StorageError: the folder cannot be written.
        """
        folder = as_path(folder)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / sidecars.TOKENIZER).write_text(self.definition, encoding="utf-8")
            if self.chat_template is None:
                (folder / sidecars.TEMPLATE).unlink(missing_ok=True)
            else:
                (folder / sidecars.TEMPLATE).write_bytes(self.chat_template.encode())
            for name, data in ((sidecars.CONTRACT, self.contract()), (sidecars.CONFIG, self._config())):
                (folder / name).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")

    @cached_property
    def vocab(self) -> int:
        """The number of ids, special tokens included: one more than the largest id."""
        return 1 + max(self._plain.get_vocab(with_added_tokens=True).values(), default=-1)

    @cached_property
    def special(self) -> Mapping[str, int]:
        """The ids of the special tokens by name, in the order of the ids."""
        added = sorted(self._plain.get_added_tokens_decoder().items())
        return {token.content: id for id, token in added if token.special}

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(self.special.values())

    @cached_property
    def _markup(self) -> tokenizers.Tokenizer:
        """A second backend, because which names count as special is a setting of the whole backend."""
        backend = copy.deepcopy(self._plain)
        backend.encode_special_tokens = False
        return backend

    def encode(self, text: str, *, markup: bool = False, framed: bool = False) -> list[int]:
        """Returns the ids of a text.

        Args:
            text: any text; the name of a special token in it is text like all other, unless ``markup`` is set.
            markup: read the names of special tokens as these tokens, as in what `chat` returns.
            framed: add what the tokenizer itself puts around a text, such as the begin token of a Llama.

        Raises:
            TextError: the text is no text (a lone half of a surrogate pair).
        """
        backend = self._markup if markup else self._plain
        try:
            return backend.encode(text, add_special_tokens=framed).ids
        except TypeError as fault:
            raise _not_text(text) from fault

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text, as `encode` does, on all cores.

        Raises:
            TextError: one of the texts is no text.
        """
        if not isinstance(texts, list | tuple):
            raise TextError(f"expected a list of texts to encode, not {type(texts).__name__}; give [text]")
        try:
            encodings = self._plain.encode_batch_fast(texts, add_special_tokens=False)
        except TypeError as fault:
            bad = next((text for text in texts if not _is_text(text)), None)
            raise _not_text(bad) from fault
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Iterable[SupportsIndex], *, hide_special: bool = False) -> str:
        """Returns the text of the ids; bytes that are no UTF-8 become U+FFFD.

        Args:
            ids: token ids, also as an array or a tensor of one dimension.
            hide_special: leave special tokens out instead of showing their names.

        Raises:
            TextError: an id outside the vocabulary.
        """
        if isinstance(ids, str) or not isinstance(ids, Iterable):
            raise TextError(f"expected token ids to decode, not {ids!r}; give a list of whole numbers")
        numbers = [self._check(id) for id in ids]
        return self._plain.decode(numbers, skip_special_tokens=hide_special)

    def name_of(self, id: int) -> str:
        """Returns how the vocabulary writes a token; the empty string for an id that the vocabulary leaves out.

        Raises:
            TextError: an id outside the vocabulary.
        """
        return self._plain.id_to_token(self._check(id)) or ""

    @cached_property
    def mask(self) -> int | None:
        """The id of the token that stands for a hidden one; None if there is none."""
        return next((self.special[name] for name in sidecars.USUAL_MASKS if name in self.special), None)

    def is_special(self, id: int) -> bool:
        """Whether the id is that of a special token."""
        return id in self._special_ids

    def chat(
        self, messages: Sequence[Mapping[str, Json]], *, add_generation_prompt: bool = True, **variables: Json
    ) -> str:
        """Returns a conversation as the one text that the model was trained on; `encode` it with ``markup=True``.

        Args:
            messages: mappings with ``role`` and ``content``, in order.
            add_generation_prompt: end with the opening of the assistant's answer.
            **variables: what else the template asks for, such as ``tools``.

        Raises:
            TextError: there is no template, or it refuses these messages.
            MissingExtra: Jinja2 is not installed.
        """
        if self.chat_template is None:
            raise TextError(
                f"this tokenizer has no chat template; put one beside tokenizer.json as {sidecars.TEMPLATE}, "
                "or give the model a plain prompt"
            )
        names = {
            key: self.name_of(id) for key, id in (("bos_token", self.begin), ("eos_token", self.end)) if id is not None
        }
        listed = list(messages) if isinstance(messages, Iterable) else [messages]
        given = {"messages": listed, "add_generation_prompt": add_generation_prompt}
        return render(self.chat_template, variables=names | given | variables)

    def contract(self) -> dict[str, Json]:
        """Returns what must not change under a model: sizes, special ids, and SHA-256 hashes of the rest."""
        definition = json.loads(self.definition)
        added = [{key: token[key] for key in ("id", "content")} for token in definition.get("added_tokens", [])]
        steps = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
        return {
            "vocab": self.vocab,
            "begin": self.begin,
            "end": self.end,
            "sha256": {
                "vocabulary": _hash([definition["model"], added]),
                "special_ids": _hash([self.begin, self.end, sorted(self.special.items())]),
                "template": self.chat_template and _hash(self.chat_template),
                "normaliser": _hash([definition.get(step) for step in steps]),
            },
        }

    def _config(self) -> dict[str, Json]:
        """What transformers' AutoTokenizer wants to know beyond tokenizer.json."""
        ends = {"bos_token": self.begin, "eos_token": self.end}
        return {"tokenizer_class": "PreTrainedTokenizerFast"} | {
            key: None if id is None else self.name_of(id) for key, id in ends.items()
        }

    @property
    def fingerprint(self) -> str:
        """One SHA-256 of the contract without the template: equal for tokenizers that give the same ids."""
        contract = self.contract()
        del contract["sha256"]["template"]
        return _hash(contract)

    def _check(self, id: SupportsIndex) -> int:
        try:
            number = index(id)
        except TypeError:
            number = -1
        if not 0 <= number < self.vocab:
            raise TextError(f"token id {id!r} is outside the vocabulary; expected 0 to {self.vocab - 1}")
        return number

    def _first_known(self, candidates: Iterable[str | int]) -> int | None:
        ids = (c if isinstance(c, int) else self._plain.token_to_id(c) for c in candidates)
        return next((id for id in ids if id is not None and 0 <= id < self.vocab), None)


def _backend(definition: str) -> tokenizers.Tokenizer:
    try:
        data = json.loads(definition)
    except (TypeError, ValueError, RecursionError) as fault:
        raise TextError(f"the tokenizer is not JSON ({fault}); expected the content of a tokenizer.json") from fault
    if not (isinstance(data, dict) and isinstance(data.get("model"), dict)):
        raise TextError('the tokenizer has no "model"; expected the content of a tokenizer.json')
    try:
        backend = tokenizers.Tokenizer.from_str(definition)
    except Exception as fault:  # the library raises the bare class
        raise TextError(f"the tokenizer cannot be built: {fault}; expected the content of a tokenizer.json") from fault
    # A limit left in the file would cut texts silently.
    backend.no_truncation()
    backend.no_padding()
    return backend


def _hash(data: Json) -> str:
    text = json.dumps(data, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _differences(old: Mapping[str, Json], new: Mapping[str, Json]) -> list[str]:
    sizes = [f"{key} ({old.get(key)} to {new[key]})" for key in ("vocab",) if old.get(key) != new[key]]
    hashes = old["sha256"] if isinstance(old.get("sha256"), dict) else {}
    return sizes + [name.replace("_", " ") for name, value in new["sha256"].items() if hashes.get(name) != value]


def _is_text(text: object) -> bool:
    return isinstance(text, str) and not any("\ud800" <= c <= "\udfff" for c in text)


def _not_text(text: object) -> TextError:
    if not isinstance(text, str):
        return TextError(f"expected text to encode, not {type(text).__name__}; give a str")
    place = next((i for i, c in enumerate(text) if "\ud800" <= c <= "\udfff"), 0)
    return TextError(f"the text has half a surrogate pair at character {place}; give text that UTF-8 can write")
