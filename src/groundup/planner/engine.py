"""What generates: a model on one device as groundup runs it, or as others do, on several or with fewer bits a weight.

    seconds of a pass = launches + (memory or products of each operation) / t + exchanges + offloaded bytes / host link
    an exchange       = latency + 2 (t - 1) / t bytes of the stream / link                            after each part

groundup generates on one device, with all weights in one type. The rest is told by the formulas of the field: tensor
parallelism over t devices, Shoeybi et al. 2019 (Megatron-LM, arXiv:1909.08053), section 3; weights in fewer bits are
read as they are held and multiplied in the type of the plan; layers that do not fit wait in the host's memory and are
read over its link at each pass, one after the other, as Hugging Face's accelerate has it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import nn

from groundup.errors import ConfigError
from groundup.infer.generate import piece_tokens
from groundup.mixers.latent_attention import LatentAttention
from groundup.model.decoder import Decoder
from groundup.model.encoder_decoder import EncoderDecoder
from groundup.parts.linear import ExpertLinear, Linear
from groundup.planner import books, decoding
from groundup.planner.decoding import Pass
from groundup.planner.hardware import Device
from groundup.planner.ledger import Operation
from groundup.planner.machine import Machine
from groundup.planner.memory import PROCESS_BYTES
from groundup.planner.parallel import REACHED
from groundup.planner.phantom import Work
from groundup.planner.time import seconds
from groundup.planner.weight_formats import Format
from groundup.specs import walk

USABLE_SHARE = 0.9  # of the device's memory; the rest is the system's

# Of what comes and goes while prompts are read, what glibc holds besides: pieces and blocks differ in size. VmHWM of
# llamas of width 768, 1 to 16 rows of 512 and 1,024 tokens: 0.7 to 1.8 of it in float32 and bfloat16 (torch 2.13).
SLACK_SHARE = {"cpu": 1.0}

# An all-reduce of next to nothing inside a node. What 8 A100s took longer than one for a token of Llama 2 7B and 70B
# (gpt-fast @0f925b5, README, tensor parallelism), less the memory's share, is 3 to 12 microseconds for each.
EXCHANGE_SECONDS = 1e-5

# PCIe 4.0 x16, one way: 16 GT/s on 16 lanes at 128/130 (PCI-SIG, PCI Express Base Specification 4.0; from memory), of
# which REACHED arrives. A device's own file says better with host_gb_s.
HOST_BYTES_PER_SECOND = 31.5e9
MOST_ROWS = 2**16
LINES = 4  # guesses along a line before every other one is halfway
COMING = 2  # layers that have a place on the device besides those that stay: the one that runs and the next
_NOTHING = Work(name="launch")


@dataclass(frozen=True, kw_only=True)
class Spent:
    """The seconds of a pass, by what they go to.

    Attributes:
        launches: starting operations.
        memory: operations that wait for memory.
        products: operations that wait for arithmetic.
        exchange: between devices.
        host: reading layers from the host's memory.
    """

    launches: float
    memory: float
    products: float
    exchange: float = 0.0
    host: float = 0.0

    @property
    def seconds(self) -> float:
        """All of them."""
        return self.launches + self.memory + self.products + self.exchange + self.host

    @property
    def bound(self) -> str:
        """What most of it goes to."""
        named = {name: getattr(self, name) for name in ("memory", "products", "launches", "exchange", "host")}
        return max(named, key=lambda name: named[name])


@dataclass(frozen=True, kw_only=True)
class Held:
    """The bytes on each device while texts are written.

    Attributes:
        weights_bytes: of those that stay there.
        state_bytes: of all rows.
        regrouping_bytes: the state of the rows that go on, copied when another ends.
        activations_bytes: what comes and goes, at most: mostly while prompts are read.
        slack_bytes: what the allocator cannot use.
        process_bytes: the program.
        offloaded_bytes: of weights in the host's memory; not in the peak.
    """

    weights_bytes: int
    state_bytes: int
    regrouping_bytes: int
    activations_bytes: int
    slack_bytes: int
    process_bytes: int
    offloaded_bytes: int = 0

    @property
    def peak_bytes(self) -> int:
        """The most that is held at once."""
        held = self.weights_bytes + self.state_bytes + self.activations_bytes + self.slack_bytes + self.process_bytes
        return held + max(0, self.regrouping_bytes - self.activations_bytes)  # nothing else comes and goes meanwhile


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A model where it generates.

    Attributes:
        spec: what is generated with.
        machine: the rates of each device.
        dtype: of the weights and the state.
        device: the published device; None for this machine.
        devices: how many share each matrix.
        format: of weights held in fewer bits; None means that all are in ``dtype``.
        offload: whether layers that do not fit wait in the host's memory.
    """

    spec: Decoder | EncoderDecoder
    machine: Machine
    dtype: torch.dtype
    device: Device | None = None
    devices: int = 1
    format: Format | None = None
    offload: bool = False

    def check(self) -> None:
        """Refuses what cannot be.

        Raises:
            ConfigError: the devices cannot share the heads, have no link, or have no host to offload to.
        """
        shared = self._shared("heads") or self.spec.predictor.width
        if shared % self.devices:
            what = "heads" if self._shared("heads") else "channels"
            raise ConfigError(f"{self.devices} devices do not divide {shared:,} {what}; choose a divisor")
        if self.offload and self.machine.device == "cpu":
            raise ConfigError("offload reads layers from the host's memory, where a processor has them; leave it out")
        if self.devices > 1:
            self._link()

    @property
    def own(self) -> bool:
        """Whether it is as groundup itself runs it."""
        return self.devices == 1 and self.format is None and not self.offload

    def reading(self, *, rows: int, prompt: int, context: int) -> Pass:
        """Returns what reading so many prompts takes, on all devices."""
        given = {"dtype": self.dtype, "device": self.machine.device}
        room = context if isinstance(self.spec, Decoder) else 2
        return decoding.reading(self.spec, rows=rows, prompt=prompt, room=room, **given)

    def writing(self, *, rows: int, prompt: int, context: int) -> Pass:
        """Returns what the step takes that fills the context, on all devices."""
        source = prompt if isinstance(self.spec, EncoderDecoder) else 0
        given = {"dtype": self.dtype, "device": self.machine.device}
        return decoding.writing(self.spec, rows=rows, seen=context - 1, source=source, **given)

    def held(self, *, rows: int, prompt: int, context: int) -> Held:
        """Returns what each device holds at most; where it offloads, with no more layers elsewhere than must be."""
        held = self._held(rows=rows, prompt=prompt, context=context)
        if not self.offload or held.peak_bytes <= self.usable_bytes:
            return held
        return self._without(held, math.ceil((held.peak_bytes - self.usable_bytes) / self._layer_bytes) + COMING)

    def most_rows(self, *, prompt: int, context: int, near: int = 2) -> int:
        """Returns how many rows fit, up to `MOST_ROWS`, looked for from ``near`` on; 0 where not even one does."""

        def room(rows: int) -> float:
            held = self._held(rows=rows, prompt=prompt, context=context)
            held = self._without(held, self._layers) if self.offload else held
            return self.usable_bytes - held.peak_bytes

        least = room(1)
        if least < 0:
            return 0
        low, high, guess, tries = 1, MOST_ROWS + 1, max(2, near), 0
        while high - low > 1:
            # Memory grows nearly in a straight line with the rows; where it does not, halving ends the search.
            halves = tries > LINES and tries % 2
            guess = (low + high) // 2 if halves else min(max(guess, low + 1), high - 1)
            left = room(guess)
            low, high = (guess, high) if left >= 0 else (low, guess)
            guess, tries = int(1 + least * (guess - 1) / max(least - left, 1.0)), tries + 1
        return low

    def _held(self, *, rows: int, prompt: int, context: int) -> Held:
        """What each device holds with all layers on it."""
        step = self.writing(rows=rows, prompt=prompt, context=context)
        comes = max(self.reading(rows=rows, prompt=prompt, context=context).held_bytes, step.held_bytes) / self.devices
        kind = self.machine.device
        state = rows * step.row_bytes / self._state_share
        return Held(
            weights_bytes=round(self.weights_bytes / self.devices),
            state_bytes=round(state),
            regrouping_bytes=round(state * (rows - 1) / rows) if self.own else 0,
            activations_bytes=round(comes),
            slack_bytes=round(SLACK_SHARE.get(kind, 0.0) * comes),
            process_bytes=PROCESS_BYTES.get(kind, 0),
        )

    def _without(self, held: Held, layers: int) -> Held:
        """The same with so many layers in the host's memory, or all, and places for those that come."""
        away = min(max(layers, COMING), self._layers)
        stays = held.weights_bytes - max(0, away - COMING) * self._layer_bytes
        return replace(held, weights_bytes=round(stays), offloaded_bytes=round(away * self._layer_bytes))

    @property
    def usable_bytes(self) -> int:
        """Of each device's memory."""
        return int(USABLE_SHARE * self.machine.memory_bytes)

    def prefill(self, *, rows: int, prompt: int, context: int) -> Spent:
        """Returns the time from the prompts to the first token of each."""
        made = self.reading(rows=rows, prompt=prompt, context=context)
        away = self.held(rows=rows, prompt=prompt, context=context).offloaded_bytes
        if isinstance(self.spec, EncoderDecoder):
            return self._spent(made, tokens=rows * prompt, passes=1, away=away)
        pieces = math.ceil(prompt / piece_tokens(self.spec, rows, prompt))
        return self._spent(made, tokens=rows * prompt, passes=pieces, away=away)

    def decode(self, *, rows: int, prompt: int, context: int) -> Spent:
        """Returns the time of the step that fills the context."""
        made = self.writing(rows=rows, prompt=prompt, context=context)
        away = self.held(rows=rows, prompt=prompt, context=context).offloaded_bytes
        return self._spent(made, tokens=rows, passes=1, away=away)

    def _spent(self, made: Pass, *, tokens: int, passes: int, away: int) -> Spent:
        launch = seconds(_NOTHING, self.machine)
        spent = {"launches": 0.0, "memory": 0.0, "products": 0.0}
        for operation, times in made.operations:
            work = self._as_held(operation)
            whole = seconds(work, self.machine)
            waits = seconds(replace(work, moved_bytes=0), self.machine) < whole
            spent["launches"] += times * min(launch, whole)
            spent["memory" if waits else "products"] += times * max(0.0, whole - launch) / self.devices
        host = passes * away / (REACHED * self._host)
        return Spent(**spent, exchange=self._exchange(tokens, passes), host=host)

    def _as_held(self, operation: Operation) -> Work:
        """The operation with the bytes of weights as they are held."""
        work, head = operation.work, self.spec.predictor.head
        table = head.tied and not operation.inside
        if self.format is None or not work.flops or (table and not self.format.tables):
            return work
        saved = operation.weights_bytes * (1 - self.format.bits / 8 / self.dtype.itemsize)
        return replace(work, moved_bytes=round(work.moved_bytes - saved))

    def _exchange(self, tokens: int, passes: int) -> float:
        """Seconds in which the devices add up the stream after each part, and gather the logits."""
        if self.devices == 1:
            return 0.0
        times = sum(len(layer.every_part) for layer in self.spec.predictor.layers) + 2
        moved = 2 * (self.devices - 1) / self.devices * tokens * self.spec.predictor.width * self.dtype.itemsize
        return times * (passes * EXCHANGE_SECONDS + moved / (REACHED * self._link()))

    def _link(self) -> float:
        assert self.device is not None
        inside = self.devices <= self.device.node
        rates = (self.device.link_bytes_per_second, self.device.network_bytes_per_second)
        rate = next((rate for rate in (rates if inside else rates[::-1]) if rate is not None), None)
        if rate is None:
            raise ConfigError(f"nobody says how fast {self.device.name} reaches another device; plan for one of them")
        return rate

    def as_held_bytes(self, made: Pass) -> float:
        """Returns what a pass reads of the weights, as they are held."""
        saved = sum(times * (op.work.moved_bytes - self._as_held(op).moved_bytes) for op, times in made.operations)
        return made.weights_bytes - saved

    @property
    def bandwidth_bytes_per_second(self) -> float:
        """Of a device's memory: measured, or published."""
        return (
            self.machine.bandwidth_bytes_per_second if self.device is None else self.device.bandwidth_bytes_per_second
        )

    @property
    def matrix_rate(self) -> float:
        """The most operations per second of a device: measured, or published."""
        dtype = str(self.dtype).removeprefix("torch.")
        if self.device is None:
            return self.machine.matrix_rate(dtype)
        rates = self.device.flops_per_second
        return rates.get(dtype, max(rates.get(name, 0.0) for name in ("float32", "bfloat16")))

    @property
    def _host(self) -> float:
        said = None if self.device is None else self.device.host_bytes_per_second
        return HOST_BYTES_PER_SECOND if said is None else said

    @cached_property
    def weights_bytes(self) -> int:
        """Of all weights, as they are held."""
        inside, maps, tables = self._weights
        return round(inside + maps + tables)

    @cached_property
    def _layer_bytes(self) -> float:
        """Of a layer's weights on each device, where layers differ the mean."""
        return self._weights[0] / self.devices / self._layers

    @cached_property
    def _weights(self) -> tuple[float, float, float]:
        """The bytes of the layers' weights, of other maps, and of tables and all else."""
        plan = books.blueprint(self.spec)
        inside = sum(count * self._bytes(list(layer.modules())) for layer, count in plan.layers)
        layers = {id(part) for layer, _ in plan.layers for part in layer.modules()}
        others = [part for part in plan.model.modules() if id(part) not in layers]
        maps = self._bytes([part for part in others if isinstance(part, Linear | ExpertLinear)])
        return inside, maps, self._bytes([part for part in others if not isinstance(part, Linear | ExpertLinear)])

    def _bytes(self, parts: Sequence[nn.Module]) -> float:
        """The bytes of these modules' own weights: matrices as the format has them."""
        total = 0.0
        for part in parts:
            few = self._few_bytes(part)
            for name, weight in part.named_parameters(recurse=False):
                total += weight.numel() * (few if few is not None and name == "weight" else self.dtype.itemsize)
        return total

    def _few_bytes(self, part: nn.Module) -> float | None:
        """The bytes of each weight of a matrix in the format; None where it holds it as all others."""
        if self.format is None:
            return None
        held = isinstance(part, Linear | ExpertLinear) or (isinstance(part, nn.Embedding) and self.format.tables)
        return self.format.bits / 8 if held else None

    @property
    def _layers(self) -> int:
        return sum(len(stack.layers) for stack in self.spec.stacks.values())

    def _shared(self, *names: str) -> int:
        settings = (vars(part) for _, part in walk(self.spec))
        return math.gcd(*(given[name] for given in settings for name in names if given.get(name)))

    @property
    def _state_share(self) -> int:
        """Among how many devices each row's state is shared: latents of all heads are whole on each."""
        if any(isinstance(part, LatentAttention) for _, part in walk(self.spec)):
            return 1
        heads = self._shared("kv_heads") or self._shared("heads")
        return math.gcd(heads, self.devices) if heads else self.devices
