"""What a family of models is: presets, a configuration that goes both ways, and invertible weight rules."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from groundup.errors import SpecError, nearest
from groundup.mixers.attention import Attention, ClippedAttention
from groundup.model.decoder import Decoder
from groundup.model.layer import LayerSpec
from groundup.model.model import Model
from groundup.model.residual import Residual
from groundup.model.stack import Stack
from groundup.rules import Rule

Config = Mapping[str, Any]  # a Hugging Face config.json, as json.loads gives it

# The activations that transformers knows by their names in configurations, and their names here.
ACTS = {
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "quick_gelu": "gelu_sigmoid",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "relu2": "relu2",
}
THEIR_ACTS = {ours: theirs for theirs, ours in reversed(ACTS.items())}

# Keys of GPT-2 and GPT-J for a classification head, which is not part of the language model.
SUMMARY = [f"summary_{name}" for name in ("type", "use_proj", "activation", "proj_to_labels", "first_dropout")]

LARGEST, MOST_LAYERS = 2**31 - 1, 100_000  # of a size, and of layers, in a configuration


def _has_no_class(_: Any) -> Any:
    raise SpecError("transformers has no class for this family")


def _as_it_is(spec: Any, _: Collection[str]) -> Any:
    return spec


@dataclass(frozen=True)
class Family:
    """A family of models; families hold rules as data and never read files.

    Attributes:
        name: the family's name, in lower case.
        presets: published sizes by name, as functions that make the spec.
        model_types: the values of config.json's ``model_type`` that it reads; the first is the one it writes. None
            where transformers has no class for the family, which then has none of what follows.
        read: a configuration to a spec.
        write: a spec to a configuration that says what the family can say of it, or None (or a SpecError) where the
            spec is of other parts; `describes` tells whether that is all.
        rules: the weight rules of a spec.
        fit: a configuration's spec and the names of its file's tensors to the spec that this file holds, for where a
            configuration leaves something open.
        kind: what its specs are.
        prefix: what some files put before every name of a tensor.
        ignored: names of tensors that hold no weights, as a pattern.
        renamed: parts of the names of tensors that other versions wrote, as patterns, to those of the rules.
    """

    name: str
    presets: Mapping[str, Callable[[], Model]]
    model_types: tuple[str, ...] = ()
    read: Callable[[Keys], Model] = _has_no_class
    write: Callable[[Any], dict[str, Any] | None] = _has_no_class
    rules: Callable[[Any], list[Rule]] = _has_no_class
    fit: Callable[[Any, Collection[str]], Model] = _as_it_is
    kind: type[Model] = Decoder
    prefix: str = ""
    ignored: re.Pattern[str] = re.compile(r"(?!)")
    renamed: Mapping[str, str] = field(default_factory=dict)

    def rename(self, name: str) -> str:
        """Returns the rules' name of a tensor that another version may have named."""
        for pattern, known in self.renamed.items():
            name = re.sub(pattern, known, name)
        return name

    def spec(self, config: Config) -> Model:
        """Returns the spec that a configuration describes.

        Raises:
            SpecError: a key is missing, has a value that this family does not have, or is unknown.
        """
        keys = Keys(config, family=self.name)
        spec = self.read(keys)
        keys.done()
        return spec

    def config(self, spec: Model) -> dict[str, Any]:
        """Returns the configuration of a spec that this family `describes`.

        Raises:
            SpecError: the spec is of other parts than the family's.
        """
        said = self.write(spec)
        if said is None:
            raise SpecError(
                f"no {self.name} of transformers is made of these parts; "
                f"see groundup.families.{self.name} for those it has"
            )
        return {"model_type": self.model_types[0], **said}

    def describes(self, spec: Model) -> bool:
        """Returns whether a configuration of this family says all that the spec says."""
        try:
            return isinstance(spec, self.kind) and self.spec(self.config(spec)) == spec
        except SpecError:  # a spec of other parts
            return False


def head_width(width: int, heads: int) -> int:
    """Returns the width of each of ``heads`` heads that share ``width`` among them.

    Raises:
        SpecError: ``heads`` does not divide ``width``.
    """
    if width % heads:
        raise SpecError(f"width={width} is not a multiple of heads={heads}; change one of them")
    return width // heads


def attention_of(spec: Model) -> Attention:
    """Returns the attention of the first layer.

    Raises:
        SpecError: there is none.
    """
    match spec:
        case Stack(layers=(LayerSpec(mix=Residual(mixer=Attention() as attention)), *_)):
            return attention
    raise SpecError("the first layer has no attention, so it is of no Transformer's family")


def clipped(attention: Attention, limit: float | None) -> Attention:
    """Returns attention whose queries, keys and values are cut off beyond ``limit``; None leaves it as it is."""
    return attention if limit is None else ClippedAttention(**attention.settings(), limit=limit)


def limit_of(attention: Attention) -> float | None:
    """Returns beyond what queries, keys and values are cut off, or None."""
    return attention.limit if isinstance(attention, ClippedAttention) else None


class Keys:
    """The keys of a configuration, each taken once, so that what nobody took can be refused by name."""

    # Keys that say nothing about what the model computes.
    inert = frozenset(
        """
        model_type architectures torch_dtype dtype transformers_version _name_or_path name_or_path use_cache
        bos_token_id eos_token_id pad_token_id sep_token_id decoder_start_token_id forced_bos_token_id
        forced_eos_token_id max_length min_length num_beams early_stopping length_penalty no_repeat_ngram_size
        do_sample task_specific_params output_attentions output_hidden_states output_past _num_labels return_dict
        return_dict_in_generate torchscript use_bfloat16 id2label label2id problem_type gradient_checkpointing
        use_flash_attention use_flash_attention_2 _attn_implementation attn_implementation
        _attn_implementation_autoset cache_implementation chunk_size_feed_forward is_decoder is_encoder_decoder
        finetuning_task prefix tokenizer_class auto_map is_llama_config transformers.js_config
        """.split()  # noqa: SIM905 - a paragraph is read faster than a line for each
    )

    def __init__(self, config: Config, *, family: str) -> None:
        self.config, self.family = config, family
        self.taken: set[str] = set()

    def assume(self, **values: Any) -> None:
        """Gives keys that are absent these values; a key that says null stays null."""
        self.config = {**values, **self.config}

    def take(self, *names: str, default: Any = ...) -> Any:
        """Returns the value of the first of the names that is there; all of them count as taken.

        Raises:
            SpecError: none is there and there is no default, or two of them disagree.
        """
        self.taken.update(names)
        found = {name: self.config[name] for name in names if self.config.get(name) is not None}
        values = list(found.values())
        if any(value != values[0] for value in values[1:]):
            raise SpecError(f"the configuration says {found}, which are names of one setting; keep one of them")
        if not values and default is ...:
            others = self.config.keys() - set(names)  # one of the names may be there and say null
            near = [found for name in names for found in get_close_matches(name, others, n=1, cutoff=0.8)]
            has = f"; it has {near[0]!r}, which may be meant" if near else ""
            kind = "" if "model_type" in self.config else "; without model_type it is read as one"
            raise SpecError(f"the configuration of a {self.family} model needs the key {' or '.join(names)}{has}{kind}")
        return values[0] if values else default

    def layers(self, *names: str, default: Any = ...) -> int:
        """Returns the value as a number of layers, each of which is made.

        Raises:
            SpecError: the value is no such number.
        """
        return self.number(*names, default=default, largest=MOST_LAYERS)

    def number(self, *names: str, default: Any = ..., whole: bool = True, largest: int = LARGEST) -> Any:
        """Returns the value as a positive number; ``default`` may be None.

        Raises:
            SpecError: the value is no such number.
        """
        value = self.take(*names, default=default)
        if value is None:
            return None
        right = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not right or not 0 <= value < math.inf or (whole and not 1 <= value <= largest):
            kind = f"a whole number from 1 to {largest:,}" if whole else "a number of at least 0"
            raise SpecError(f"the configuration's {names[0]} is {value!r}; expected {kind}")
        return value if whole else float(value)

    def positive(self, *names: str, default: Any = ...) -> Any:
        """Returns the value as a number above zero; ``default`` may be None.

        Raises:
            SpecError: the value is no such number.
        """
        value = self.number(*names, default=default, whole=False)
        if value == 0:
            raise SpecError(f"the configuration's {names[0]} is {value!r}; expected a number above 0")
        return value

    def choice(self, *names: str, known: Mapping[str, Any], default: str) -> Any:
        """Returns what ``known`` has under the value, whatever its case.

        Raises:
            SpecError: it has nothing under it.
        """
        value = self.take(*names, default=default)
        if not isinstance(value, str) or value.lower() not in known:
            raise SpecError(f"the configuration's {names[0]} is {value!r}; choose from {', '.join(known)}")
        return known[value.lower()]

    def flag(self, name: str, *, default: bool) -> bool:
        """Returns the value as true or false.

        Raises:
            SpecError: the value is neither; or null, which transformers takes for false, where true goes unsaid.
        """
        value = self.take(name, default=default)
        if not isinstance(value, bool) or (value and self._null(name)):
            said = self.config.get(name)
            raise SpecError(f"the configuration's {name} is {said!r}; expected true or false")
        return value

    def architecture(self, known: Iterable[str]) -> str:
        """Returns the class of transformers that the configuration names first, or the first that is known.

        Raises:
            SpecError: it is none of those that are known.
        """
        named = self.config.get("architectures") or list(known)
        first = named[0] if isinstance(named, list) else named
        if first not in list(known):
            raise SpecError(f"the {self.family} architecture {first} is not known; known are {', '.join(known)}")
        return first

    def token(self, name: str, *, default: int | None) -> int | None:
        """Returns the value as the id of a token; None where the configuration says null.

        Raises:
            SpecError: the value is no id, or several.
        """
        self.taken.add(name)
        value = self.config.get(name, default)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST):
            raise SpecError(f"the configuration's {name} is {value!r}; expected the id of one token, or null")
        return value

    def skip(self, *names: str) -> None:
        """Takes keys that say nothing about what this family computes."""
        self.taken.update(names)

    def only(self, **values: Any) -> None:
        """Takes keys that may only have these values, which are also what they are without being said.

        Raises:
            SpecError: one has another.
        """
        for name, value in values.items():
            self.among(name, value)

    def among(self, name: str, *values: Any) -> None:
        """Takes a key that may only have one of these values; the first is the default.

        Raises:
            SpecError: it has another.
        """
        value = self.take(name, default=values[0])
        if value is True and self._null(name):
            value = None  # which transformers takes for false
        if value not in values:
            raise SpecError(
                f"the configuration's {name} is {value!r}, which would change the mathematics; "
                f"the {self.family} family is built with {values[0]!r} only"
            )

    def _null(self, name: str) -> bool:
        return name in self.config and self.config[name] is None

    def done(self) -> None:
        """Refuses what nobody took.

        Raises:
            SpecError: keys are left that may change the mathematics; the message names them and the nearest known.
        """
        left = sorted(name for name in self.config if name not in self.taken and name not in self.inert)
        if left:
            hints = [f"{name}: {hint}" for name in left if (hint := nearest(name, self.taken))]
            hints = hints if len(left) > 1 else [nearest(left[0], self.taken)]
            raise SpecError(
                f"the configuration's {', '.join(left)} is not known to the {self.family} family and may change "
                f"the mathematics; {' '.join(hints) + ' otherwise ' if any(hints) else ''}remove it if it does not"
            )
