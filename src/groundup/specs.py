"""A spec describes one part of a model or of a run as a frozen value; a tree of them is the whole design.

A subclass of `Spec` is made a frozen, keyword-only dataclass and is known by its class name, its kind. What is
written here once works for every part: reading and writing as plain data, checking of kinds and values, walking,
overriding by a dotted path, comparing. Specs that describe modules add ``build(width)``. The annotation of a field
says all of its values: ``width: Size`` is a whole number from 1 on.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, ClassVar, NamedTuple, Self, TypeVar, dataclass_transform

from groundup.errors import ConfigError, SpecError, nearest

Json = Any  # what json.loads returns: the one place where types end
AnySpec = TypeVar("AnySpec", bound="Spec")

LARGEST = 2**31 - 1  # of a size
MOST_ITEMS = 100_000  # of a list in a file, such as the layers of a model


class Limit(NamedTuple):
    """Which values of its type a field may have.

    Attributes:
        words: the same in words, after "expected".
        holds: whether a value is one of them.
        names: all of them, where they are names of which the nearest may be meant.
    """

    words: str
    holds: Callable[[Any], bool]
    names: tuple[str, ...] = ()

    @classmethod
    def one_of(cls, names: Iterable[str]) -> Limit:
        """Returns the limit to these names."""
        names = tuple(names)
        return cls(f"one of {', '.join(names)}", names.__contains__, names)


Size = Annotated[int, Limit(f"a whole number from 1 to {LARGEST:,}", lambda n: 1 <= n <= LARGEST)]
Count = Annotated[int, Limit(f"a whole number from 0 to {LARGEST:,}", lambda n: 0 <= n <= LARGEST)]
Seed = Annotated[int, Limit("a whole number from 0 to 2**63 - 1", lambda n: 0 <= n < 2**63)]
Positive = Annotated[float, Limit("a finite number above 0", lambda x: x > 0)]
NotNegative = Annotated[float, Limit("a number of at least 0", lambda x: x >= 0)]
OneOrMore = Annotated[float, Limit("a number of at least 1", lambda x: x >= 1)]
AboveOne = Annotated[float, Limit("a number above 1", lambda x: x > 1)]
Share = Annotated[float, Limit("a share from 0 to 1", lambda x: 0 <= x <= 1)]
ShareBelowOne = Annotated[float, Limit("a share of at least 0 and below 1", lambda x: 0 <= x < 1)]


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field,))
class Spec:
    """A frozen value that describes a part; its ``repr`` is the constructor call that makes it."""

    kinds: ClassVar[dict[str, type[Spec]]] = {}
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    def __init_subclass__(cls, *, abstract: bool = False) -> None:
        dataclass(frozen=True, kw_only=True, repr=False)(cls)
        if "kind" in cls.__dataclass_fields__:
            raise SpecError(f"{cls.__name__} has a field named kind, which says in a file what a spec is; rename it")
        if abstract:
            return
        known = Spec.kinds.setdefault(cls.__name__, cls)
        if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise SpecError(f"there is a spec {cls.__name__} in {known.__module__} already; choose another name")
        Spec.kinds[cls.__name__] = cls  # defined again at the same place: a notebook cell, a reloaded module

    def __post_init__(self) -> None:
        """Checks every field against its annotation; subclasses that check more call this first.

        A list is taken for the tuple that it stands for.

        Raises:
            SpecError: a field has a value of another type or outside its limit.
        """
        for name, hint in _hints(type(self)).items():
            given = getattr(self, name)
            if isinstance(given, list) and typing.get_origin(hint) is tuple:
                object.__setattr__(self, name, tuple(given))
            check(getattr(self, name), hint, name=f"{type(self).__name__} has {name}")

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={_show(value)}" for name, value in self.settings().items())
        return f"{type(self).__name__}({inside})"

    def settings(self) -> dict[str, Any]:
        """Returns the fields that differ from their defaults, by name."""
        every = ((f, getattr(self, f.name)) for f in fields(self))
        return {f.name: value for f, value in every if value != f.default}

    def replace(self, **changes: Any) -> Self:
        """Returns a copy with some fields changed.

        Raises:
            SpecError: there is no such field (the message names the nearest), or the changes do not fit.
        """
        names = [f.name for f in fields(self)]
        for name in (name for name in changes if name not in names):
            hint = nearest(name, names) or f"known: {', '.join(names) or 'none'}"
            raise SpecError(f"{type(self).__name__} has no setting {name!r}; {hint}")
        return dataclasses.replace(self, **changes)

    def to_dict(self, *, whole: bool = False) -> dict[str, Json]:
        """Returns the spec as plain data for JSON or YAML: its kind and its fields.

        Args:
            whole: whether fields at their defaults are written too.
        """
        named = {f.name: getattr(self, f.name) for f in fields(self)} if whole else self.settings()
        return {"kind": type(self).__name__} | {name: _plain(value, whole=whole) for name, value in named.items()}

    @classmethod
    def from_dict(cls, data: Json) -> Self:
        """Returns the spec that ``to_dict`` wrote, of this class or a subclass of it.

        Raises:
            ConfigError: the kind or a field does not exist, a field is missing or of another type.
        """
        return _read(data, cls, where="")


def check(value: Any, hint: Any, *, name: str) -> None:
    """Makes sure that a value is of an annotated type such as `Seed`.

    Raises:
        SpecError: it is not; the message says by ``name`` what it was to be.
    """
    if not _fits(value, hint):
        text = repr(value)
        shown = text if len(text) <= 80 else f"{text[:80]} ..."
        names = next((limit.names for limit in getattr(hint, "__metadata__", ()) if isinstance(limit, Limit)), ())
        near = nearest(value, names) if isinstance(value, str) else ""
        raise SpecError(f"{name}={shown}; {near and f'{near} '}expected {_expected(hint)}")


def walk(spec: Spec) -> Iterator[tuple[str, Spec]]:
    """Yields every spec of the tree with its dotted path, parents first; the root's path is empty."""
    yield "", spec
    for name, value in ((f.name, getattr(spec, f.name)) for f in fields(spec)):
        items = enumerate(value) if isinstance(value, tuple) else [(None, value)]
        for index, item in items:
            if isinstance(item, Spec):
                here = name if index is None else f"{name}.{index}"
                yield from ((f"{here}.{path}" if path else here, node) for path, node in walk(item))


def override(spec: AnySpec, path: str, value: Any) -> AnySpec:
    """Returns a copy in which the field at a dotted path has a new value, converted to the field's type.

    A number names one item of a tuple, ``*`` every item that has the rest of the path:
    ``override(spec, "layers.*.mix.mixer.position.theta", "1e6")``. A number in place of a tuple of parts is how many of
    them there are to be, beginning again after the last: ``override(spec, "layers", 6)``.

    Raises:
        ConfigError: no such field (the message names the nearest), or a value of another type.
    """
    return override_all(spec, {path: value})


def override_all(spec: AnySpec, changes: Mapping[str, Any]) -> AnySpec:
    """Returns a copy with several fields changed as by `override`, in order; they have to fit together, not one by one.

    Raises:
        ConfigError: as `override` does.
        SpecError: the changed spec does not fit together.
    """
    for path, value in changes.items():
        spec = _override(spec, type(spec), path.split("."), value, path)
    return _checked(spec)


def diff(one: Spec, other: Spec) -> dict[str, tuple[Any, Any]]:
    """Returns the fields in which two specs differ: dotted path to (value in one, value in other)."""
    a, b = _leaves(one), _leaves(other)
    return {path: (a.get(path), b.get(path)) for path in a | b if a.get(path) != b.get(path)}


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    join = (lambda name: f"{path}.{name}") if path else str
    if isinstance(value, Spec):
        inside = {f.name: getattr(value, f.name) for f in fields(value)}
        kind = {join("kind"): type(value).__name__}
        return kind | {k: v for name, item in inside.items() for k, v in _leaves(item, join(name)).items()}
    if isinstance(value, tuple):
        return {k: v for i, item in enumerate(value) for k, v in _leaves(item, join(i)).items()}
    return {path: value}


def _show(value: Any) -> str:
    if not isinstance(value, tuple):
        return repr(value)
    runs = [(repr(item), sum(1 for _ in run)) for item, run in itertools.groupby(value)]
    return " + ".join(f"({text},)" + (f" * {count}" if count > 1 else "") for text, count in runs) or "()"


def _plain(value: Any, *, whole: bool) -> Json:
    """Plain data for a field; equal neighbours in a tuple are written once, with their count."""
    if isinstance(value, Spec):
        return value.to_dict(whole=whole)
    if not isinstance(value, tuple):
        return value
    items: list[Json] = []
    for item, run in itertools.groupby(value):
        count = sum(1 for _ in run)
        alone = count == 1 or not isinstance(item, Spec)
        plain = _plain(item, whole=whole)
        items += [plain] * count if alone else [{"repeat": count, "of": plain}]
    return items


@cache
def _hints(cls: type[Spec]) -> dict[str, Any]:
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError as fault:  # annotations are texts, which are looked up in the module
        raise SpecError(f"{cls.__name__}: {fault}; define it at the top of the module {cls.__module__}") from fault
    return {f.name: hints[f.name] for f in fields(cls)}


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (types.UnionType, typing.Union)


def _fits(value: Any, hint: Any) -> bool:
    """Returns whether a value is of the annotated type: a whole number is a number too, true and false are none."""
    if hint is Any:
        return True
    if hint in (int, float) and isinstance(value, bool):
        return False
    if hint is float:
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max
    if isinstance(hint, type):
        return isinstance(value, hint)
    inside = typing.get_args(hint)
    if typing.get_origin(hint) is Annotated:
        return _fits(value, inside[0]) and all(limit.holds(value) for limit in inside[1:])
    if _is_union(hint):
        return any(_fits(value, option) for option in inside)
    count = len(value) if isinstance(value, tuple) else -1
    return (
        count >= 0
        and (inside[-1] is Ellipsis or count == len(inside))
        and all(_fits(item, _item_hint(inside, i)) for i, item in enumerate(value))
    )


def _expected(hint: Any) -> str:
    """Returns an annotated type in words."""
    words = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}
    inside = typing.get_args(hint)
    if typing.get_origin(hint) is Annotated:
        return inside[1].words
    if _is_union(hint):
        return " or ".join(map(_expected, inside))
    if inside:
        return f"a tuple of {', '.join(_expected(item) for item in inside if item is not Ellipsis)}"
    if hint is types.NoneType:
        return "none"
    kinds = sorted(name for name, kind in Spec.kinds.items() if issubclass(kind, hint))
    return words.get(hint) or " or ".join(kinds) or hint.__name__


def _read(data: Any, hint: Any, where: str) -> Any:
    """Returns ``data`` as a value of the annotated type ``hint``, or says at which path it is not one."""
    if typing.get_origin(hint) is Annotated:
        return _read(data, typing.get_args(hint)[0], where)
    if _is_union(hint):
        return _read_union(data, typing.get_args(hint), where)
    if typing.get_origin(hint) is tuple:
        return _read_tuple(data, typing.get_args(hint), where)
    if isinstance(hint, type) and issubclass(hint, Spec):
        return data if isinstance(data, hint) else _read_spec(data, hint, where)
    return _read_number_or_text(data, hint, where)


def _read_union(data: Any, options: tuple[Any, ...], where: str) -> Any:
    if type(None) in options and (data is None or data == "none"):
        return None
    options = tuple(option for option in options if option is not type(None))
    for option in options[:-1]:
        try:
            return _read(data, option, where)
        except ConfigError:
            continue
    return _read(data, options[-1], where)


def _read_tuple(data: Any, hints: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if not isinstance(data, list | tuple):
        raise ConfigError(f"{where or 'value'} is {data!r}; expected a list")
    items: list[Any] = []
    for i, item in enumerate(data):
        run = isinstance(item, Mapping) and set(item) == {"repeat", "of"}
        count = _read(item["repeat"], int, f"{where}.{i}.repeat") if run else 1
        if run and not 1 <= count <= MOST_ITEMS - len(items):
            raise ConfigError(f"{where}.{i}.repeat is {count}; expected 1 or more, and {MOST_ITEMS:,} items in all")
        items += [_read(item["of"] if run else item, _item_hint(hints, i), f"{where}.{i}")] * count
    if hints[-1] is not Ellipsis and len(items) != len(hints):
        raise ConfigError(f"{where or 'value'} is {data!r}; expected {len(hints)} items")
    return tuple(items)


def _item_hint(hints: tuple[Any, ...], index: int) -> Any:
    """The type of an item of ``tuple[X, ...]`` or ``tuple[X, Y]``, given the brackets; beyond the end, the last."""
    return hints[0] if hints[-1] is Ellipsis else hints[min(index, len(hints) - 1)]


def _read_spec(data: Any, base: type[Spec], where: str) -> Spec:
    if isinstance(data, str):
        data = {"kind": data}
    if not isinstance(data, Mapping):
        kinds = _expected(base)
        raise ConfigError(f"{where or 'the spec'} is {data!r}; expected a mapping with the settings of {kinds}")
    cls = _kind(data.get("kind", base.__name__), base, where)
    hints, prefix = _hints(cls), f"{where}." if where else ""
    for name in data:
        if name != "kind" and name not in hints:
            hint = nearest(str(name), hints) or f"known: {', '.join(hints)}"
            raise ConfigError(f"{cls.__name__} has no setting {prefix}{name}; {hint}")
    required = [f.name for f in fields(cls) if f.default is dataclasses.MISSING]
    missing = [prefix + name for name in required if name not in data]
    if missing:
        raise ConfigError(f"{cls.__name__} needs {', '.join(missing)}")
    return cls(**{name: _read(value, hints[name], prefix + name) for name, value in data.items() if name != "kind"})


def _kind(name: Any, base: type[Spec], where: str) -> type[Spec]:
    known = {kind.lower(): cls for kind, cls in Spec.kinds.items() if issubclass(cls, base)}
    cls = known.get(str(name).lower().replace("_", "").replace("-", ""))
    if cls is not None:
        return cls
    names = sorted(c.__name__ for c in known.values())
    if name == base.__name__:
        raise ConfigError(f"{where or 'the spec'} needs a kind of {name}; choose from {', '.join(names)}")
    some = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    hint = nearest(str(name), names) or f"choose from {some}"
    own = "one of your own is known once its file is imported, on the command line by GROUNDUP_IMPORT=FILE.py"
    raise ConfigError(f"{where or 'the spec'} has the unknown kind {name!r}; {hint}; {own}")


_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def _read_number_or_text(data: Any, hint: Any, where: str) -> Any:
    if hint is bool and isinstance(data, str) and data.lower() in _WORDS:
        return _WORDS[data.lower()]
    if hint in (int, float):
        with suppress(OverflowError):  # of a whole number that no float can hold
            number = _number(data)
            if number is not None and (hint is float or number == number // 1):
                return hint(number)
    elif hint is Any or (isinstance(hint, type) and isinstance(data, hint)):
        return data
    raise ConfigError(f"{where or 'value'} is {data!r}; expected {_expected(hint)}")


def _number(data: Any) -> int | float | None:
    """The number that was given as such or as text; None for anything else, and for what is not a number by name."""
    if isinstance(data, str):
        for kind in (int, float):  # int first: a float would round a large whole number
            with suppress(ValueError):
                return _number(kind(data))
    if isinstance(data, bool) or not isinstance(data, int | float) or math.isnan(data):
        return None
    return data


def _override(node: Any, hint: Any, keys: list[str], value: Any, path: str) -> Any:
    if not keys:
        many = type(value) is int and isinstance(node, tuple) and any(isinstance(part, Spec) for part in node)
        return _as_many(node, value, path) if many else _read(value, hint, path)
    key, rest = keys[0], keys[1:]
    if isinstance(node, tuple):
        return _override_items(node, hint, keys, value, path)
    if not isinstance(node, Spec):
        raise ConfigError(f"{path} goes on below {node!r}, which has no settings; drop .{'.'.join(keys)}")
    hints = _hints(type(node))
    if key not in hints:
        known = nearest(key, hints) or f"known: {', '.join(hints) or 'none'}"
        raise ConfigError(f"{path}: {type(node).__name__} has no setting {key!r}; {known}")
    changed = copy.copy(node)  # not made anew, which would check it before the other changes are there
    object.__setattr__(changed, key, _override(getattr(node, key), hints[key], rest, value, path))
    return changed


def _as_many(parts: tuple[Any, ...], count: int, path: str) -> tuple[Any, ...]:
    if not 1 <= count <= MOST_ITEMS:
        raise ConfigError(f"{path} is {count}; expected a number of parts from 1 to {MOST_ITEMS:,}")
    return tuple(itertools.islice(itertools.cycle(parts), count))


def _checked(value: Any) -> Any:
    """Makes a spec and all within it anew, which checks that they fit together."""
    if isinstance(value, tuple):
        once = {id(item): item for item in value}  # layers are often one and the same
        made = {key: _checked(item) for key, item in once.items()}
        return tuple(made[id(item)] for item in value)
    if not isinstance(value, Spec):
        return value
    return value.replace(**{f.name: _checked(getattr(value, f.name)) for f in fields(value)})


def _override_items(items: tuple[Any, ...], hint: Any, keys: list[str], value: Any, path: str) -> tuple[Any, ...]:
    key, rest = keys[0], keys[1:]
    hints = typing.get_args(next(h for h in (hint, *typing.get_args(hint)) if typing.get_origin(h) is tuple))
    chosen = [i for i in range(len(items)) if key in ("*", str(i))]
    if not chosen:
        known = f"choose * or a number from 0 to {len(items) - 1}" if items else "there are none"
        raise ConfigError(f"{path}: {key!r} is not an item; {known}")
    changed, faults = list(items), []
    for i in chosen:
        try:
            changed[i] = _override(items[i], _item_hint(hints, i), rest, value, path)
        except ConfigError as fault:  # with *, another item may have the setting
            faults.append(fault)
    if len(faults) == len(chosen):
        raise faults[0]
    return tuple(changed)
