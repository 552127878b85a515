"""Where a figure comes from, as data: the terms with their own values, the formula over them, the source.

A formula is arithmetic over the names of terms, and is worked out from its text, so what is printed is what is
reckoned: `Derivation.total` is the figure, or the derivation is wrong.
"""

from __future__ import annotations

import ast
import math
import operator
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from groundup.planner import units

SUM = "the sum of the terms"
NAME = re.compile(r"\b[a-z_][a-z_0-9]*\b")
WIDTH = 100  # of sentences, in letters
ONE = {"devices": "device", "parameters": "parameter", "rows": "row", "tokens": "token"}
EXACT = 10**15  # from here on, whole numbers are written with six digits

_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.LtE: operator.le,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "ceil": math.ceil,
    "floor": math.floor,
    "log2": math.log2,
    "max": max,
    "min": min,
    "round": round,
}


@dataclass(frozen=True, kw_only=True)
class Term:
    """A number that a figure is made of.

    Attributes:
        name: what it is; where a formula refers to it, a name of small letters, digits and underscores.
        value: all of it; None where nobody knows it.
        unit: as in `written`.
        source: where it comes from.
        count: how many equal things the value is of.
        parts: what the value is the sum of; empty where it is whole.
    """

    name: str
    value: float | None
    unit: str = ""
    source: str = ""
    count: int = 1
    parts: tuple[Term, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Derivation:
    """How a figure of a plan is found.

    Attributes:
        figure: its name.
        value: the figure; None where it cannot be told.
        unit: as in `written`.
        formula: over the names of the terms, or `SUM`.
        terms: what the formula refers to.
        source: whose formula it is, or how it was counted or measured.
        meaning: what the figure is.
        breakdown: terms whose sum is the figure too, seen another way; empty where there is none.
        notes: what else is good to know, in sentences.
    """

    figure: str
    value: float | None
    unit: str = ""
    formula: str = SUM
    terms: tuple[Term, ...]
    source: str
    meaning: str = ""
    breakdown: tuple[Term, ...] = ()
    notes: tuple[str, ...] = ()

    def total(self) -> float | None:
        """Returns what the formula comes to with the terms' values; None where the figure cannot be told."""
        if self.value is None:
            return None
        values = {term.name: term.value for term in self.terms if term.value is not None}
        if self.formula == SUM:
            return sum(term.value for term in self.terms if term.value is not None)
        return evaluate(self.formula, values)

    def with_numbers(self) -> str:
        """Returns the formula with the terms' values in the place of their names."""
        values = {term.name: term.value for term in self.terms}
        if self.formula == SUM:
            return " + ".join(number(term.value) for term in self.terms)
        return NAME.sub(lambda name: number(values[name[0]]) if name[0] in values else name[0], self.formula)

    def to_dict(self) -> dict[str, Any]:
        """Returns the derivation as plain data, with what the formula comes to."""
        return asdict(self) | {"with_numbers": self.with_numbers(), "total": self.total()}

    def __str__(self) -> str:
        """Returns the derivation as text: the figure, the formula, the formula with numbers, the terms."""
        return "\n".join(_lines(self))


def evaluate(formula: str, values: Mapping[str, float]) -> float:
    """Returns what a formula comes to.

    Args:
        formula: sums, products, powers, ``<=``, and the functions ceil, floor, log2, max, min and round.
        values: of its names.

    Raises:
        ValueError: the formula holds something else, or a name without a value.
    """

    def of(node: ast.AST) -> Any:
        match node:
            case ast.Expression(body=body):
                return of(body)
            case ast.Constant(value=int() | float() as value):
                return value
            case ast.Name(id=name) if name in values:
                return values[name]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -of(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](of(left), of(right))
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](of(left), of(right))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
                return _FUNCTIONS[name](*map(of, args))
        raise ValueError(f"{formula!r} holds {ast.unparse(node)!r}, which is neither arithmetic nor the name of a term")

    return of(ast.parse(formula, mode="eval"))


def number(value: float | None) -> str:
    """Returns a number as formulas have it: whole ones to the unit, others to six digits; ``?`` for None."""
    if value is None:
        return "?"
    if abs(value) < EXACT and (value == int(value) or abs(value) >= 1e5):
        return f"{value:,.0f}"
    return f"{value:,.6g}" if abs(value) < EXACT else f"{value:.6g}"


def written(value: float | bool | None, unit: str) -> str:
    """Returns a quantity in people's units; None is ``not known``.

    Args:
        value: the quantity.
        unit: ``bytes``, ``seconds``, ``operations``, ``share``, ``""`` for a plain number, or any other word.
    """
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    words: dict[str, Callable[[float], str]] = {
        "bytes": units.bytes_,
        "seconds": units.duration,
        "operations": units.flops,
        "share": units.percent,
    }
    if unit == "seconds" and value < 0.9995:
        return _short(value)
    if value == 1 and unit in ONE:
        unit = ONE[unit]
    return words[unit](value) if unit in words else f"{number(value)} {unit}".rstrip()


def _short(seconds: float) -> str:
    """A time below a second."""
    scale, unit = next((s, u) for s, u in ((1e3, "ms"), (1e6, "µs"), (1e9, "ns")) if seconds * s >= 0.9995 or s == 1e9)
    return f"{seconds * scale:.3g} {unit}"


def _lines(derivation: Derivation) -> Iterator[str]:
    figure, unit, value = derivation.figure, derivation.unit, derivation.value
    plain = number(value) if value is not None and not isinstance(value, bool) else ""
    said = written(value, unit)
    yield f"{figure} = {said}" + (f" ({plain})" if plain and plain != said.split(" ")[0] else "")
    yield from _wrapped(derivation.meaning)
    yield from _wrapped(f"= {derivation.formula}")
    if derivation.formula != SUM and value is not None:
        yield from _wrapped(f"= {derivation.with_numbers()}")
    yield from _table(derivation.terms)
    if derivation.breakdown:
        yield "  the same by kind:"
        yield from _table(derivation.breakdown)
    for note in derivation.notes:
        yield from _wrapped(note)
    yield from _wrapped(f"source: {derivation.source}")


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ", break_long_words=False)


def _table(terms: tuple[Term, ...]) -> Iterator[str]:
    """The terms, one on a line, those that they are sums of below them."""
    rows = [row for term in terms for row in _rows(term, depth=2)]
    names, values = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
    for name, value, source in rows:
        yield f"{name:<{names}}  {value:>{values}}  {source}".rstrip()


def _rows(term: Term, *, depth: int) -> Iterator[tuple[str, str, str]]:
    each = ""
    if term.count > 1 and term.value is not None:
        each = f"{term.count} x {written(term.value / term.count, term.unit)}"
    note = "; ".join(filter(None, (each, term.source)))
    yield "  " * depth + term.name, written(term.value, term.unit), note
    for part in term.parts:
        yield from _rows(part, depth=depth + 1)
