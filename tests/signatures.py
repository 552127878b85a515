"""Checks every annotated signature of groundup while the tests run: types by beartype, shapes by jaxtyping.

jaxtyping's import hook puts its decorator on each function and dataclass of the package. Three things make it fit:
an int is taken where a float is asked for, as type checkers do (PEP 484); ``Self`` is not checked, because beartype
can only read it on whole classes; and inside `torch.compile` the plain function runs, because Dynamo cannot trace
the checks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import jaxtyping
import torch
from beartype import BeartypeConf, FrozenDict, beartype

_RULES = BeartypeConf(is_pep484_tower=True, hint_overrides=FrozenDict({Self: Any}))
_jaxtyped = jaxtyping.jaxtyped
_off = False
UNCHECKED = {"groundup.planner.heap", "groundup.planner.replay"}  # a million calls a plan, of plain numbers


@contextmanager
def unchecked() -> Iterator[None]:
    """Lets wrong types pass, as they do where users call: what the package itself says of them is then seen."""
    global _off
    before, _off = _off, True
    try:
        yield
    finally:
        _off = before


def typed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function with its arguments and its result checked by beartype."""
    return beartype(conf=_RULES)(function)


def install() -> None:
    """Instruments groundup; call it before the package is imported for the first time."""
    jaxtyping.jaxtyped = _decorator  # pyrefly: ignore[bad-assignment]
    jaxtyping.install_import_hook("groundup", f"{__name__}.{typed.__name__}")


def _decorator(*, typechecker: Callable[..., Any]) -> Callable[[Any], Any]:
    """What the hook's decorator does, but stepping aside while Dynamo traces."""

    def decorate(target: Any) -> Any:
        if target.__module__ in UNCHECKED:
            return target
        if not isinstance(target, type):
            return _eager_only(_jaxtyped(target, typechecker=typechecker), plain=target)
        plain = target.__init__
        _jaxtyped(target, typechecker=typechecker)  # changes the __init__ of dataclasses in place
        if target.__init__ is not plain:
            target.__init__ = _eager_only(target.__init__, plain=plain)
        return target

    return decorate


def _eager_only(checked: Callable[..., Any], *, plain: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(plain)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        return plain(*args, **kwargs) if torch.compiler.is_compiling() or _off else checked(*args, **kwargs)

    return call
