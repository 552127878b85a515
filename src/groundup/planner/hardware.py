"""Devices as their makers publish them, for plans of machines that are not at hand: ``8xH100-SXM``.

The figures are data, a file for each maker in ``hardware/``; a file of the user's own has the same form. What a device
reaches of what is published is told by the shares below.
"""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from groundup.errors import ConfigError, nearest, one_line
from groundup.planner.benchmark import SPECIALS, Sample
from groundup.planner.machine import Machine

FILES = Path(__file__).parent / "hardware"
ASKED = re.compile(r"(?:(?P<count>[0-9]+)x)?(?P<name>.+)", re.IGNORECASE)
OWN = re.compile(r"(?P<file>.+\.toml)(?::(?P<name>[\w.-]+))?")
MOST_DEVICES = 10**6
USABLE_SHARE = 0.9  # of a device's memory where it is planned alone; the rest is the system's
MOST_BYTES = 2**20  # of a file of devices
GB = 2**30  # makers' gigabytes of memory are powers of two
FIGURES = {"memory_gb", "bandwidth_gb_s", "watts", "link_gb_s", "node", "network_gb_s", "host_gb_s", "usd_per_hour"}
DTYPES = ("float32", "tf32", "bfloat16", "float16", "float8", "int8")
TEXTS = {"aliases": list, "device": str, "tflops": dict, "price": str, "source": str, "recalled": list}

# What kernels reach of the published rates. Products of matrices: 271 of 312 TFLOP/s on an A100 at the best sizes
# (stas00, ml-engineering, compute/accelerator), less at others; attention: FlashAttention-2 (Dao 2023,
# arXiv:2307.08691, figures 4 to 6); memory: what plain kernels come to.
PRODUCT_SHARE, ATTENTION_SHARE, ATTENTION_BACKWARD_SHARE, MEMORY_SHARE = 0.7, 0.5, 0.4, 0.85
LEAST, MOST = 1e-6, 1e12  # of any figure in a file: what lies outside is a slip, and would only overflow later
FLOAT32_SHARE = 1 / 16  # of the rate in bfloat16, where nobody says: an A100's 19.5 of 312, an H100's 67 of 989
LAUNCH_SECONDS = {"cpu": 3e-6, "cuda": 3e-6, "mps": 1e-5}


@dataclass(frozen=True, kw_only=True)
class Device:
    """One accelerator or processor, as published; rates are of dense products.

    Attributes:
        name: the one it is listed by.
        aliases: other names of it.
        device: ``cpu``, ``cuda`` or ``mps``: what PyTorch calls it, or what is most like it.
        memory_bytes: its memory.
        bandwidth_bytes_per_second: of its memory.
        flops_per_second: of products of matrices, by the name of their type.
        watts: under load, as designed for; None where nobody says.
        link_bytes_per_second: to the other devices of its node, one way; None where it has no link.
        node: how many devices such a link joins.
        network_bytes_per_second: its share of the network between nodes, one way; None where it has none.
        host_bytes_per_second: to the memory of its host, one way; None where nobody says.
        usd_per_hour: what renting it cost; None where nobody says.
        price: where and when it cost that.
        source: of the figures.
        recalled: the figures that no source at hand says.
    """

    name: str
    aliases: tuple[str, ...] = ()
    device: str
    memory_bytes: int
    bandwidth_bytes_per_second: float
    flops_per_second: dict[str, float]
    watts: float | None = None
    link_bytes_per_second: float | None = None
    node: int = 1
    network_bytes_per_second: float | None = None
    host_bytes_per_second: float | None = None
    usd_per_hour: float | None = None
    price: str = ""
    source: str = ""
    recalled: tuple[str, ...] = ()

    @property
    def best(self) -> str:
        """The type in which a run multiplies matrices here."""
        return "bfloat16" if "bfloat16" in self.flops_per_second else "float32"

    def machine(self, products: str | None = None) -> Machine:
        """Returns the rates that kernels reach, in the form in which those of this machine are measured.

        Args:
            products: ``float16`` or ``float8``: the type at whose rates products run that are rehearsed in bfloat16;
                attention stays in 16 bits, as DeepSeek-V3 keeps it (arXiv:2412.19437, section 3.3.1).

        Raises:
            ConfigError: nobody says how fast the device is in that type.
        """
        rates = {dtype: self.flops_per_second.get(dtype) for dtype in ("float32", "bfloat16", "float16")}
        halves = rates["bfloat16"] or rates["float16"]
        rates["float32"] = rates["float32"] or FLOAT32_SHARE * self.flops_per_second["bfloat16"]
        if products is not None:
            rates["bfloat16"] = self._rate(products)
        samples = [
            Sample(name, dtype, size, share * rate)
            for dtype, of_products in rates.items()
            for name, size, share, rate in (
                ("product", (4096, 4096, 4096), PRODUCT_SHARE, of_products),
                ("attention", (4096, 4096), ATTENTION_SHARE, of_products if dtype == "float32" else halves),
                (
                    "attention_backward",
                    (4096, 4096),
                    ATTENTION_BACKWARD_SHARE,
                    of_products if dtype == "float32" else halves,
                ),
            )
            if of_products is not None and rate is not None
        ]
        moving = MEMORY_SHARE * self.bandwidth_bytes_per_second
        samples += [Sample(name, "float32", (), moving) for name in ("stream", "read")]
        samples += [Sample(name, self.best, (), rates["float32"] / 32) for name in SPECIALS]
        samples.append(Sample("launch", "float32", (), 1 / LAUNCH_SECONDS[self.device]))
        return Machine(
            processor=self.name,
            device=self.device,
            cores=1,
            memory_bytes=self.memory_bytes,
            torch="",
            load=0.0,
            samples=tuple(samples),
        )

    def _rate(self, dtype: str) -> float:
        if dtype not in self.flops_per_second:
            able = [name for name, device in devices().items() if dtype in device.flops_per_second]
            raise ConfigError(
                f"nobody says how fast {self.name} multiplies in {dtype}; those that do: {', '.join(able)}"
            )
        return self.flops_per_second[dtype]


def parse(on: str) -> tuple[int, Device]:
    """Returns how many of which device: ``8xH100-SXM``, ``A100``, ``2xmine.toml:NAME``.

    Raises:
        ConfigError: there is no such device, or none or too many of it.
    """
    asked = ASKED.fullmatch(on.strip())
    if asked is None:
        raise ConfigError(f"on={on!r} names no device; give one such as 8xH100-SXM, or 'this'")
    digits = (asked["count"] or "1").lstrip("0") or "0"
    if len(digits) > 20:
        raise ConfigError(f"on asks for a number of devices with {len(digits)} digits; give 1 to {MOST_DEVICES:,}")
    count = int(digits)
    if not 1 <= count <= MOST_DEVICES:
        raise ConfigError(f"on={on!r} asks for {count:,} devices; give 1 to {MOST_DEVICES:,}")
    own = OWN.fullmatch(asked["name"])
    return count, _in_own_file(Path(own["file"]), own["name"]) if own else _find(asked["name"], devices())


@cache
def devices() -> dict[str, Device]:
    """Returns the devices that are known, by name."""
    return {name: device for file in sorted(FILES.glob("*.toml")) for name, device in _read(file).items()}


def _find(name: str, known: dict[str, Device]) -> Device:
    by_name = {key.lower(): device for device in known.values() for key in (device.name, *device.aliases)}
    if name.lower() not in by_name:
        hint = nearest(name, by_name) or "see `groundup list hardware`, or give a file of your own such as mine.toml"
        raise ConfigError(f"there is no device {name[:80]!r}; {hint}")
    return by_name[name.lower()]


def _in_own_file(file: Path, name: str | None) -> Device:
    known = _read(file.expanduser())
    if name is None and len(known) == 1:
        return next(iter(known.values()))
    if name is None:
        raise ConfigError(f"{file} describes {', '.join(known) or 'no device'}; name one, as in {file}:NAME")
    return _find(name, known)


def _read(file: Path) -> dict[str, Device]:
    """Returns the devices of a file.

    Raises:
        ConfigError: it cannot be read, or a figure is missing, unknown, or no number above 0.
    """
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ConfigError(f"{file} has more than {MOST_BYTES:,} bytes, so it is no list of devices; give another")
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except ConfigError:
        raise
    except (OSError, ValueError, RecursionError) as fault:
        raise ConfigError(f"{file} cannot be read as TOML ({one_line(fault)}); mend or replace it") from fault
    return {name: _device(name, said, file) for name, said in data.items()}


def _device(name: str, said: Any, file: Path) -> Device:
    if not name.strip() or not name.isprintable():
        raise ConfigError(f"{file}: a device has the name {name!r}; give it one in a line, such as [mine]")
    if not isinstance(said, dict):
        raise ConfigError(f"{file}: {name} is {said!r}; expected a table of figures, [{name}]")
    unknown = next((key for key in said if key not in FIGURES | TEXTS.keys()), None)
    if unknown is not None:
        hint = nearest(unknown, [*FIGURES, *TEXTS]) or "remove it"
        raise ConfigError(f"{file}: {name} has no figure {unknown!r}; {hint}")
    for key in ("device", "memory_gb", "bandwidth_gb_s", "tflops"):
        if key not in said:
            raise ConfigError(f"{file}: {name} needs {key}")
    for key, kind in TEXTS.items():
        if not isinstance(said.get(key, kind()), kind):
            raise ConfigError(f"{file}: {name} has {key}={said[key]!r}; expected {kind.__name__}")
        if kind is list and not all(isinstance(item, str) for item in said.get(key, ())):
            raise ConfigError(f"{file}: {name} has {key}={said[key]!r}; expected a list of texts")
    figures = {key: said[key] for key in FIGURES & said.keys()} | {f"tflops.{k}": v for k, v in said["tflops"].items()}
    for key, figure in figures.items():
        if isinstance(figure, bool) or not isinstance(figure, int | float) or not 0 < figure < math.inf:
            raise ConfigError(f"{file}: {name} has {key}={figure!r}; expected a number above 0")
        if not LEAST <= figure <= MOST:
            raise ConfigError(f"{file}: {name} has a {key} that is not between {LEAST:g} and {MOST:g}; mend it")
    if said.get("node", 1) != int(said.get("node", 1)):
        raise ConfigError(f"{file}: {name} has node={said['node']!r}; expected a whole number of devices")
    unknown = next((key for key in said["tflops"] if key not in DTYPES), None)
    if unknown is not None:
        hint = nearest(unknown, DTYPES) or f"choose from {', '.join(DTYPES)}"
        raise ConfigError(f"{file}: {name} has tflops of {unknown!r}; {hint}")
    if said["device"] not in LAUNCH_SECONDS:
        raise ConfigError(f"{file}: {name} has device={said['device']!r}; expected {' or '.join(LAUNCH_SECONDS)}")
    rates = {dtype: figure * 1e12 for dtype, figure in said["tflops"].items()}
    if not rates.keys() & {"float32", "bfloat16"}:
        raise ConfigError(f"{file}: {name} needs tflops of float32 or bfloat16")
    return Device(
        name=name,
        aliases=tuple(said.get("aliases", ())),
        device=said["device"],
        memory_bytes=round(said["memory_gb"] * GB),
        bandwidth_bytes_per_second=said["bandwidth_gb_s"] * 1e9,
        flops_per_second=rates,
        watts=said.get("watts"),
        link_bytes_per_second=_scaled(said.get("link_gb_s")),
        node=int(said.get("node", 1)),
        network_bytes_per_second=_scaled(said.get("network_gb_s")),
        host_bytes_per_second=_scaled(said.get("host_gb_s")),
        usd_per_hour=said.get("usd_per_hour"),
        price=said.get("price", ""),
        source=said.get("source", ""),
        recalled=tuple(said.get("recalled", ())),
    )


def _scaled(figure: float | None) -> float | None:
    return None if figure is None else figure * 1e9
