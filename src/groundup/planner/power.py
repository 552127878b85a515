"""What devices draw, what a cap on it costs in time, and what their making came with.

    speed  = (cap / draw)^0.31        below the draw, else 1
    energy = hours x min(cap, draw) x PUE
    embodied = hours x (150 kg + 2,500 kg / 8) / (6 years x 85%)

The exponent is that of a published measurement: V100s of 250 W that trained language models under a cap of 150 W took
13.7% less energy (McDonald et al. 2022, arXiv:2205.09646, section 4; that they took 6.8% longer is recalled). Both
together say that they drew 186 W without the cap, and that 0.81 of the power gave 0.936 of the speed: a power of 0.31,
near the third that clocks and voltages that fall together give. Another: an RTX 3090 loses about 5% at 275 of 366 W
(wiki.babel.cs.cmu.edu, Efficiency), where the curve says 8.5%.

Embodied: Luccioni et al. 2022 (BLOOM, arXiv:2211.02001), section 4.1: 150 kg for a GPU, 2,500 kg for a server of
eight, used 85% of six years (recalled; their 11.2 t for BLOOM's 1,082,990 hours come out).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from groundup.errors import ConfigError
from groundup.planner.published import carbon_kg, energy_kwh

if TYPE_CHECKING:
    from groundup.planner.plan import Plan

SPEED_PER_POWER = 0.31  # the exponent, see above
LEAST_SHARE = 0.25  # of what a device was designed for: makers allow no lower cap (A100: 100 of 400 W, recalled)
SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)  # of the power, that a trade is shown at
DEVICE_KG, SERVER_KG, SERVER_DEVICES = 150.0, 2500.0, 8
LIFE_HOURS = 0.85 * 6 * 365 * 24


@dataclass(frozen=True, kw_only=True)
class Traded:
    """A run under a cap.

    Attributes:
        watts_cap: of each device.
        share: of what it draws without.
        train_seconds: of all of the training.
        energy_kwh: of it.
        cost_usd: of the devices' hours; None where nobody says what one costs.
        co2_kg: None without a region.
    """

    watts_cap: float
    share: float
    train_seconds: float
    energy_kwh: float
    cost_usd: float | None
    co2_kg: float | None

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain data."""
        return asdict(self)


def check(cap: float, *, draw: float | None, most: float | None) -> float:
    """Returns what a device draws under a cap, in watts.

    Args:
        cap: what it may draw.
        draw: what it draws without; None where nobody says.
        most: what it was designed for; None where nobody says.

    Raises:
        ConfigError: the draw is not known, or the cap is above what it was designed for, or too low.
    """
    if draw is None:
        raise ConfigError("nobody says what the machine draws, so a cap tells nothing; give --watts too")
    most = most or draw
    if cap > most:
        raise ConfigError(f"watts_cap={cap:g} is more than the {most:g} W that the device may draw; give less")
    if cap < LEAST_SHARE * most:
        raise ConfigError(
            f"watts_cap={cap:g} is less than {LEAST_SHARE:.0%} of the device's {most:g} W, which no maker allows; "
            f"give {LEAST_SHARE * most:g} or more"
        )
    return min(cap, draw)


def speed(cap: float, *, draw: float) -> float:
    """Returns the share of its speed that a device of such a draw keeps under a cap."""
    return min(1.0, cap / draw) ** SPEED_PER_POWER


def embodied_kg(device_hours: float) -> float:
    """Returns the share of so many hours in the carbon of a device's and its server's making."""
    return device_hours * (DEVICE_KG + SERVER_KG / SERVER_DEVICES) / LIFE_HOURS


def trade(made: Plan, *, draw: float, grams_per_kwh: float | None) -> Iterator[Traded]:
    """Yields what a planned run takes under caps at `SHARES` of its draw.

    Args:
        made: the plan, under a cap or not.
        draw: of a device without a cap, in watts.
        grams_per_kwh: of its electricity; None where nobody says.
    """
    now = speed(made.watts_cap or draw, draw=draw)
    for share in SHARES:
        slower = now / speed(share * draw, draw=draw)
        hours = made.devices * slower * made.train_seconds / 3600
        energy = energy_kwh(device_hours=hours, watts=share * draw, pue=made.pue)
        yield Traded(
            watts_cap=share * draw,
            share=share,
            train_seconds=slower * made.train_seconds,
            energy_kwh=energy,
            cost_usd=None if made.cost_usd is None else slower * made.cost_usd,
            co2_kg=None if grams_per_kwh is None else carbon_kg(kwh=energy, grams_per_kwh=grams_per_kwh),
        )
