"""The optimizer's state in the memory of the host: what the device no longer holds, and what a step takes longer.

    seconds of a step = bytes of gradients, then of weights / host link  +  parameters / the host's rate of updates

Source: Ren et al. 2021 (ZeRO-Offload, arXiv:2101.06840), section 3: gradients go down, weights come up, the update
is the host's; its table of update times (recalled: 0.22 s for 1B parameters, 2.57 s for 10B, on a DGX-2's processors)
gives the rate. What the paper hides behind the next step's forward (section 5.2) is not taken off: that changes the
mathematics. groundup trains without it yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from groundup.errors import ConfigError
from groundup.optim.optimizers import AdamW, Optimizer
from groundup.planner.hardware import Device
from groundup.planner.rehearsal import Part

UPDATES_PER_SECOND = 4e9  # parameters, by a host with the processors of a DGX-2, two of 24 cores (recalled, see above)
HOST_BYTES_PER_SECOND = 16e9  # one way, PCIe 3.0 x16, as in the paper; a device's file says better with host_gb_s
REACHED = 0.8  # of the link's rate; 54.8 of 64 GB/s were measured to an H100 (github.com/aigatech/vpbenchmarking)


def check(device: Device | None, optimizer: Optimizer) -> None:
    """Refuses what cannot be offloaded.

    Raises:
        ConfigError: the device is the host itself, or the host cannot make the update at a known rate.
    """
    if device is None or device.device != "cuda":
        raise ConfigError(
            "offload moves the optimizer's state from an accelerator to its host's memory; give one with on, such as "
            "on='RTX-4090'"
        )
    if not isinstance(optimizer, AdamW):
        raise ConfigError("offload is planned for adamw alone, whose time on a host was published; choose adamw")


def offloaded(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Returns a step on whose device no weight is updated and no optimizer's state lies."""
    return tuple(replace(part, optimizer_bytes=0, update_peak_bytes=0, update=()) for part in parts)


def seconds(device: Device, *, params: float, bytes_each: float, sharing: int = 1) -> float:
    """Returns what the exchange with the host and its update take.

    Args:
        device: whose link it is.
        params: that one device updates.
        bytes_each: of a gradient and a weight together, as they are sent.
        sharing: devices that share a host's processors.
    """
    link = REACHED * (device.host_bytes_per_second or HOST_BYTES_PER_SECOND)
    return params * bytes_each / link + sharing * params / UPDATES_PER_SECOND
