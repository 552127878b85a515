"""Quantities as people read them: 124.4M parameters, 1.23 GiB, 3 min 20 s."""

from __future__ import annotations

_COUNTS = ("", "K", "M", "B", "T", "P", "E", "Z", "Y")  # B is the field's word for 1e9: an 8B model
_SI = (" ", " k", " M", " G", " T", " P", " E", " Z", " Y")
_BINARY = (" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB")
_YEAR_SECONDS = 365.25 * 86_400


def count(number: float) -> str:
    """Returns a number of things: ``999``, ``124.4M``, ``8.03B``."""
    return _scaled(number, _COUNTS, base=1000.0)


def several(number: int, thing: str) -> str:
    """Returns a number with what it counts: ``1 core``, ``2 cores``."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def bytes_(number: float) -> str:
    """Returns an amount of memory in powers of 1024: ``512 B``, ``1.23 GiB``."""
    return _scaled(number, _BINARY, base=1024.0)


def flops(number: float) -> str:
    """Returns a number of floating-point operations: ``854.4 MFLOP``."""
    return f"{_scaled(number, _SI, base=1000.0)}FLOP"


def duration(seconds: float) -> str:
    """Returns a time in its two largest units: ``350 ms``, ``12.3 s``, ``3 min 20 s``, ``2 d 5 h``, ``14.2 years``."""
    if seconds < 0.9995:
        return f"{_digits(seconds * 1e3)} ms"
    if round(seconds, 1) < 60:
        return f"{_digits(seconds)} s"
    if seconds >= 2 * _YEAR_SECONDS:
        return f"{count(seconds / _YEAR_SECONDS)} years"
    big, unit, small, subunit = _clock(seconds)
    rounded = round(seconds / small)
    return f"{rounded * small // big} {unit} {rounded * small % big // small} {subunit}"


def percent(share: float) -> str:
    """Returns a share of one: ``74%``, ``0.8%``."""
    return f"{_digits(100 * share)}%" if abs(share) < 0.0995 else f"{100 * share:.0f}%"


def _clock(seconds: float) -> tuple[int, str, int, str]:
    if seconds >= 86_400 - 30:
        return 86_400, "d", 3_600, "h"
    return (3_600, "h", 60, "min") if seconds >= 3_600 - 0.5 else (60, "min", 1, "s")


def _scaled(number: float, units: tuple[str, ...], *, base: float) -> str:
    step = 0
    while round(abs(number), 1) >= base and step < len(units) - 1:
        number, step = number / base, step + 1
    text = f"{number:.0f}" if step == 0 and number == int(number) else _digits(number)
    return text + units[step]


def _digits(number: float) -> str:
    """Three digits, four from 100 on: 0.0123, 1.23, 12.3, 124.4."""
    size = abs(number)
    if size >= 9.995:
        return f"{number:.1f}"
    return f"{number:.2f}" if size >= 0.9995 else f"{number:.3g}"
