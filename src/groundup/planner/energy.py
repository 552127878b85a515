"""Energy that a run really took, read from counters of the hardware.

On a processor they are those of Intel's RAPL, which AMD's have too, as Linux shows them: a file of microjoules for each
socket, which begins anew at its largest value (Linux, Documentation/power/powercap). On a GPU it is what NVML counts
since the driver was loaded (nvmlDeviceGetTotalEnergyConsumption, millijoules, Volta and later). Memory beside the
sockets, disks and losses of the power supply are not in them; whatever else runs there is.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

RAPL = Path("/sys/class/powercap")
PACKAGES = "intel-rapl:[0-9]*"  # sockets; their parts have a second number and are in them
EVERY_SECONDS = 60.0  # between readings: a counter of 262 kJ begins anew after 17 minutes at 250 W
NO_COUNTER = "no counter of energy: {root} has no intel-rapl (a virtual machine, an ARM, or no Linux)"
LOCKED = "the counters of energy are for root: sudo chmod a+r {root}/intel-rapl:*/energy_uj"
NO_NVML = "the energy of the GPU needs the package nvidia-ml-py: pip install 'groundup[energy]'"


@dataclass(frozen=True, kw_only=True)
class Source:
    """What energy can be read from; or why from nothing.

    Attributes:
        name: of the counters; empty without any.
        why_not: why there are none, with the way to get them; empty with some.
        counters: each gives joules since some moment, and begins anew after ``most`` of them.
    """

    name: str = ""
    why_not: str = ""
    counters: tuple[Counter, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Counter:
    """A counter that only grows, until it begins anew.

    Attributes:
        joules: reads it.
        most: the joules after which it begins anew; infinite where it does not.
    """

    joules: Callable[[], float]
    most: float = math.inf


class Meter:
    """Adds up the joules that a source counts from when it was made."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._taken = 0.0
        self._lost = not source.counters
        self._lock = threading.Lock()
        self._last: list[float] = []
        with self._reading():
            self._last = [counter.joules() for counter in source.counters]

    def read(self) -> float | None:
        """Returns the joules so far; None where they cannot be read, or could not be at some moment."""
        with self._lock, self._reading():
            now = [counter.joules() for counter in self.source.counters]
            for counter, before, after in zip(self.source.counters, self._last, now, strict=True):
                self._taken += after - before if after >= before else _anew(counter, before, after)
            self._last = now
        return None if self._lost or not math.isfinite(self._taken) else self._taken

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """A counter that goes away takes the whole figure with it, and nothing else."""
        try:
            yield
        except (OSError, ValueError, RuntimeError):
            self._lost = True


@contextmanager
def metered(source: Source) -> Iterator[Meter]:
    """Gives a meter that is read now and then while the block runs, so that no counter begins anew twice unseen."""
    meter, ended = Meter(source), threading.Event()

    def keep_reading() -> None:
        while not ended.wait(EVERY_SECONDS):
            meter.read()

    thread = threading.Thread(target=keep_reading, daemon=True)
    if any(counter.most < math.inf for counter in source.counters):
        thread.start()
    try:
        yield meter
    finally:
        ended.set()


def source_of(device: torch.device | str, *, rapl: Path = RAPL) -> Source:
    """Returns what tells the energy of a device.

    Args:
        device: where a run computes.
        rapl: the folder of the processor's counters.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return _of_gpu(device)
    if device.type == "cpu":
        return _of_processor(rapl)
    return Source(why_not=f"nothing counts the energy of {device.type} for a program without root's rights")


def _of_processor(root: Path) -> Source:
    folders = [folder for folder in sorted(root.glob(PACKAGES)) if folder.name.count(":") == 1]
    folders = [folder for folder in folders if _text(folder / "name").startswith("package")] or folders
    if not folders:
        return Source(why_not=NO_COUNTER.format(root=root))
    counters = []
    for folder in folders:
        try:
            _microjoules(folder / "energy_uj")
        except PermissionError:
            return Source(why_not=LOCKED.format(root=root))
        except (OSError, ValueError):
            return Source(why_not=f"{folder / 'energy_uj'} cannot be read as a number")
        most = math.inf
        with suppress(OSError, ValueError):
            most = _microjoules(folder / "max_energy_range_uj")
        counters.append(Counter(joules=_reader(folder / "energy_uj"), most=most))
    return Source(name="RAPL, the processor's sockets", counters=tuple(counters))


def _of_gpu(device: torch.device) -> Source:
    try:
        import pynvml  # pyrefly: ignore[missing-import]
    except ImportError:
        return Source(why_not=NO_NVML)
    try:
        pynvml.nvmlInit()
        # NVML numbers all GPUs, PyTorch those that it may use: the identity is the same.
        identity = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(identity)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except (pynvml.NVMLError, AttributeError, RuntimeError) as fault:
        return Source(why_not=f"NVML does not count this GPU's energy: {fault}")

    def joules() -> float:
        try:
            return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
        except pynvml.NVMLError as fault:
            raise OSError(str(fault)) from fault

    return Source(name="NVML, the GPU alone", counters=(Counter(joules=joules),))


def _reader(file: Path) -> Callable[[], float]:
    return lambda: _microjoules(file)


def _microjoules(file: Path) -> float:
    """A file's whole number of microjoules, in joules."""
    return int(file.read_text()) / 1e6


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except (OSError, ValueError):
        return ""


def _anew(counter: Counter, before: float, after: float) -> float:
    """What was counted by a counter that began anew in between; nobody knows it of one that should not have."""
    return counter.most - before + after
