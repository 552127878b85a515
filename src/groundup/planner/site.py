"""Where a run is planned: this machine, measured, or published devices that need not be at hand."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch

from groundup.devices import autocast_dtype
from groundup.errors import ConfigError
from groundup.planner import hardware, refit, units
from groundup.planner.hardware import Device
from groundup.planner.machine import Machine, calibrate
from groundup.planner.time import IN_A_STEP

MICRO_BATCH_TOKENS = {"cpu": 2**13}  # enough for large products; more only take memory
MICRO_BATCH_TOKENS_ELSEWHERE = 2**16
LOW = {"fp16": "float16", "fp8": "float8"}  # types that are planned alone


@dataclass(frozen=True, kw_only=True)
class Site:
    """How many devices of which rates.

    Attributes:
        machine: the rates of one.
        devices: how many there are.
        device: as published; None for this machine.
        low: the type of the products, where groundup cannot train in it yet.
    """

    machine: Machine
    devices: int = 1
    device: Device | None = None
    low: str | None = None

    @classmethod
    def of(cls, on: Machine | Device | str, precision: str | None) -> Self:
        """Returns the site that a user names.

        Args:
            on: ``this``, a `Machine` or a `Device`, or published devices such as ``8xH100-SXM``.
            precision: of the products, such as ``bf16``; None means the best.

        Raises:
            ConfigError: there is no such device, or nobody says its rate in the precision.
        """
        low, count = LOW.get(precision or ""), 1
        if isinstance(on, str) and on != "this":
            count, on = hardware.parse(on)
        if isinstance(on, Device):
            return cls(machine=on.machine(low), devices=count, device=on, low=low)
        if low is not None:
            raise ConfigError(
                f"precision={precision} is planned by published rates; name a device with on, such as on='H100'"
            )
        return cls(machine=on if isinstance(on, Machine) else calibrate())

    @cached_property
    def correction(self) -> refit.Correction:
        """What this machine's runs say of the planner's constants; nothing of machines that are not at hand."""
        return refit.correction(self.machine) if self.device is None else refit.NONE

    @property
    def name(self) -> str:
        """What a plan calls it."""
        if self.device is None:
            return f"{self.machine.processor}, {units.several(self.machine.cores, 'core')}"
        return f"{self.devices:,} x {self.device.name}" if self.devices > 1 else self.device.name

    @property
    def slower(self) -> float:
        """By how much operations take longer in a step: published shares say it already."""
        return IN_A_STEP * self.correction.seconds if self.device is None else 1.0

    @property
    def most_tokens(self) -> int:
        """Tokens of a micro-batch whose rows nobody gave, on one device."""
        return MICRO_BATCH_TOKENS.get(self.machine.device, MICRO_BATCH_TOKENS_ELSEWHERE)

    def dtype(self, precision: str | None) -> torch.dtype:
        """Returns the type of the products as it is rehearsed."""
        precision = precision or "auto"
        if self.low is not None:
            return torch.bfloat16  # whose bytes and operations are the same: 8 bits are made for the product alone
        if self.device is not None and precision == "auto":
            return getattr(torch, self.device.best)
        return autocast_dtype(precision, torch.device(self.machine.device))

    def rate(self, dtype: str) -> float:
        """Returns the most operations per second in a type: measured, or published."""
        if self.device is None:
            return self.machine.matrix_rate(dtype)
        rates = self.device.flops_per_second
        return rates.get(dtype, max(rates.get(name, 0.0) for name in ("float32", "bfloat16")))
