"""How much carbon the electricity of a place comes with; the figures are data in ``grids/``, with their sources."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from groundup.errors import ConfigError, nearest

# A cloud's energy over its devices': Google's centres, 1.10 in the mean (Patterson et al. 2021, arXiv:2104.10350, has
# 1.08 to 1.12 for its four; the mean is recalled).
CLOUD_PUE = {"gcp": 1.10}
FILES = Path(__file__).parent / "grids"


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The electricity of a place.

    Attributes:
        name: of the place.
        grams_per_kwh: of CO2 equivalent, the mean over a year.
        year: of the figure; None where its source does not say.
        pue: the energy of its centres over that of their devices; None where nobody says.
    """

    name: str
    grams_per_kwh: float
    year: int | None
    pue: float | None = None


def find(region: str) -> Grid:
    """Returns the electricity of a country (``FR``, ``FRA``, ``France``), a state (``US-CA``), or a cloud's region.

    Raises:
        ConfigError: there is no such place; the message names the nearest.
    """
    known = _grids()
    found = known.get(region.lower())
    if found is None:
        names = [name for name in known if len(name) > 3]
        hint = nearest(region, names) or "give a country such as FR, a state such as US-CA, or gcp:europe-west4"
        raise ConfigError(f"there is no region {region[:80]!r}; {hint}")
    return found


@cache
def _grids() -> dict[str, Grid]:
    """Every place by each of its names, in lower case."""
    known: dict[str, Grid] = {}
    for file in sorted(FILES.glob("*.toml")):
        for code, said in tomllib.loads(file.read_text(encoding="utf-8")).items():
            grid = Grid(
                name=said["name"],
                grams_per_kwh=said["grams"],
                year=said.get("year"),
                pue=CLOUD_PUE.get(code.partition(":")[0]),
            )
            for name in (code, said.get("code", code), said["name"]):
                known.setdefault(name.lower(), grid)
    return known
