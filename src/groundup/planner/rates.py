"""What the hours of devices come to: energy, money and carbon, with and without a cap on their power."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from groundup.errors import ConfigError
from groundup.planner import power
from groundup.planner.grids import Grid
from groundup.planner.published import carbon_kg, energy_kwh
from groundup.planner.site import Site

MOST_PUE = 10


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What an hour of a device comes to.

    Attributes:
        draw: watts that it draws without a cap; None where nobody says.
        watts: that it draws under the cap, if there is one; None where nobody says.
        watts_cap: what it may draw; None without a cap.
        usd_per_hour: of it; None where nobody says.
        grid: whose electricity it is; None where nobody says.
        pue: the centre's energy over that of its devices.
        embodied: whether the carbon of its making is told.
    """

    draw: float | None
    watts: float | None
    watts_cap: float | None
    usd_per_hour: float | None
    grid: Grid | None
    pue: float
    embodied: bool

    @classmethod
    def of(
        cls,
        site: Site,
        grid: Grid | None,
        *,
        watts: float | None,
        watts_cap: float | None,
        usd_per_hour: float | None,
        pue: float | None,
        embodied: bool,
    ) -> Self:
        """Returns the rates that were given, and those published where none was.

        Raises:
            ConfigError: the cap is not one of the device, or the PUE is none.
        """
        if pue is not None and not (isinstance(pue, int | float) and 1 <= pue <= MOST_PUE):
            raise ConfigError(
                f"pue={pue!r} is no centre's energy over its devices'; give a number from 1 to {MOST_PUE}"
            )
        published = site.device
        draw = watts or (published.watts if published else None)
        most = published.watts if published else None
        return cls(
            draw=draw,
            watts=draw if watts_cap is None else power.check(watts_cap, draw=draw, most=most),
            watts_cap=watts_cap,
            usd_per_hour=usd_per_hour or (published.usd_per_hour if published else None),
            grid=grid,
            pue=pue or (grid.pue if grid else None) or 1.0,
            embodied=embodied,
        )

    @property
    def grams_per_kwh(self) -> float | None:
        """Of CO2 equivalent; None where nobody says."""
        return None if self.grid is None else self.grid.grams_per_kwh

    @property
    def speed(self) -> float:
        """The share of its speed that a device keeps under the cap."""
        if self.watts is None or self.draw is None:
            return 1.0
        return power.speed(self.watts, draw=self.draw)

    def figures(self, device_hours: float) -> dict[str, Any]:
        """Returns what a plan says of so many hours."""
        energy = None if self.watts is None else energy_kwh(device_hours=device_hours, watts=self.watts, pue=self.pue)
        grams = self.grams_per_kwh
        return {
            "energy_kwh": energy,
            "co2_kg": None if energy is None or grams is None else carbon_kg(kwh=energy, grams_per_kwh=grams),
            "cost_usd": None if self.usd_per_hour is None else device_hours * self.usd_per_hour,
            "watts": self.watts,
            "watts_cap": self.watts_cap,
            "pue": self.pue,
            "embodied_kg": power.embodied_kg(device_hours) if self.embodied else None,
        }
