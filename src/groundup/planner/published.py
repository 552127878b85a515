"""Formulas that the field publishes, to check a plan against.

    PaLM            train FLOPs per token = 6 N + 12 L H K T                 MFU = tokens/s FLOPs per token / peak
    Megatron        FLOPs of a step = B T D (L (96 D + 16 T) + 6 V)  every forward made twice; less without
    ZeRO            bytes = (w + g + k) N, of which stages 1, 2, 3 share k, g, w among the devices
    activations     bytes of a layer = B T D (34 + 5 H T / D), 16-bit, dropout, GELU of 4 D; less where parts are shared
    Chinchilla      relative positions, and of the two tables of V tokens the one that gives logits
    energy, carbon  kWh = hours watts PUE / 1000;   kg = kWh g/kWh / 1000;   USD = hours USD/hour

Sources: Chowdhery et al. 2022 (PaLM, arXiv:2204.02311), appendix B; Narayanan et al. 2021 (arXiv:2104.04473), equations
2 to 4; Rajbhandari et al. 2019 (ZeRO, arXiv:1910.02054), figure 1; Korthikanti et al. 2022 (arXiv:2205.05198), table
2; Hoffmann et al. 2022 (Chinchilla, arXiv:2203.15556), appendix F, tables A4 and A9; Patterson et al. 2021
(arXiv:2104.10350). Letters: N parameters, L layers, D width, H heads, K their width, T tokens
of a row, B rows, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from groundup.errors import ConfigError

Recompute = Literal["none", "selective", "full"]


def palm_flops_per_token(*, params: float, layers: int, width: int, context: int) -> float:
    """Returns the operations of training on a token, attention in full; ``width`` is that of all heads."""
    return 6 * params + 12 * layers * width * context


def utilisation(*, tokens_per_second: float, flops_per_token: float, devices: int, peak_flops: float) -> float:
    """Returns the model's operations a second as a share of what the devices could do (MFU)."""
    return tokens_per_second * flops_per_token / (devices * peak_flops)


def megatron_step_flops(
    *, rows: int, context: int, layers: int, width: int, vocab: int, recompute: Recompute = "full"
) -> float:
    """Returns the operations of a step; by default every forward is made twice, and so counted.

    With ``selective`` attention's scores are made twice, and with ``none`` nothing is.

    Raises:
        ConfigError: nothing is recomputed in such a way.
    """
    if recompute not in get_args(Recompute):
        raise ConfigError(f"recompute={recompute!r} is unknown; choose from {', '.join(get_args(Recompute))}")
    matrices, scores = {"none": (72, 12), "selective": (72, 24), "full": (96, 16)}[recompute]
    layer = matrices * width + scores * context
    return rows * context * width * (layers * layer + 6 * vocab)


def megatron_params(*, context: int, layers: int, width: int, vocab: int) -> float:
    """Returns the parameters of a GPT with tied embeddings and learned positions, its last norm not counted."""
    return 12 * layers * width**2 * (1 + 13 / (12 * width) + (vocab + context) / (12 * layers * width))


def chinchilla_params(*, layers: int, width: int, heads: int, head_width: int, hidden: int, vocab: int) -> int:
    """Returns the parameters that table A9 counts: a table of tokens is one of them, that of the logits."""
    inside = heads * head_width
    attention = 3 * (width + 1) * inside + (inside + 1) * width
    relative = (width + 2) * inside  # a map of positions to keys, and a bias for what is read and for where it stands
    layer = attention + relative + (width + 1) * hidden + (hidden + 1) * width + 4 * width
    return layers * layer + 2 * width + width * vocab


def chinchilla_row_flops(*, context: int, layers: int, width: int, heads: int, hidden: int) -> int:
    """Returns the operations of training on a row as table A4 has them: softmax counted, tables of tokens not."""
    attention = 8 * context * width**2 + (4 * width + 3 * heads) * context**2
    return 3 * layers * (attention + 4 * context * width * hidden)


def device_hours(*, tokens: float, tokens_per_second: float) -> float:
    """Returns the hours of one device that reads so many tokens a second; of several, that of each."""
    return tokens / tokens_per_second / 3600


def train_seconds(
    *, params: float, tokens: float, devices: int, flops_per_second: float, recompute: bool = False
) -> float:
    """Returns how long training takes at the operations a second that each device reaches.

    With ``recompute`` every forward is made twice, and ``flops_per_second`` counts that.
    """
    return (8 if recompute else 6) * params * tokens / (devices * flops_per_second)


@dataclass(frozen=True, kw_only=True)
class BytesPerParam:
    """What each parameter takes while it is trained.

    Attributes:
        weights: bytes, in the type of the products.
        gradients: bytes, as they are kept.
        optimizer: bytes of its state, a float32 copy of the weights included.
    """

    weights: float
    gradients: float
    optimizer: float

    def on_each(self, params: float, *, stage: int, devices: int) -> float:
        """Returns the bytes of all three on each device; arguments and errors are those of `apart`."""
        return sum(self.apart(params, stage=stage, devices=devices))

    def apart(self, params: float, *, stage: int, devices: int) -> tuple[float, float, float]:
        """Returns the bytes on each device where a stage of ZeRO shares them: 0 nothing, 1 the last, 2, 3 all.

        Raises:
            ConfigError: there is no such stage, or no device.
        """
        if devices < 1:
            raise ConfigError(f"devices={devices!r} must be at least 1")
        if stage not in range(4):
            raise ConfigError(f"stage={stage!r} is none of ZeRO's: 0, 1, 2 or 3")
        weights, gradients, optimizer = (
            params * size / (devices if stage >= first else 1)
            for size, first in ((self.weights, 3), (self.gradients, 2), (self.optimizer, 1))
        )
        return weights, gradients, optimizer


FLOAT32_ADAM = BytesPerParam(weights=4, gradients=4, optimizer=8)
MIXED_ADAM = BytesPerParam(weights=2, gradients=2, optimizer=12)  # ZeRO's K = 12
MEGATRON_ADAM = BytesPerParam(weights=2, gradients=4, optimizer=12)  # gradients added up in float32


def activation_bytes(
    *,
    rows: int,
    context: int,
    width: int,
    heads: int,
    tensor: int = 1,
    sequence: bool = False,
    recompute: Recompute = "none",
) -> float:
    """Returns what a layer of GPT keeps for the backward.

    Args:
        rows: of a micro-batch.
        context: tokens of a row.
        width: of the stream.
        heads: of attention.
        tensor: devices that share the layer's matrices.
        sequence: whether they share the norms' and dropouts' tokens too.
        recompute: ``selective``: attention's scores are made again; ``full``: all but the layer's input is.

    Raises:
        ConfigError: nothing is recomputed in such a way.
    """
    if recompute not in get_args(Recompute):
        raise ConfigError(f"recompute={recompute!r} is unknown; choose from {', '.join(get_args(Recompute))}")
    unit = rows * context * width
    if recompute == "full":
        return 2 * unit
    scores = 0.0 if recompute == "selective" else 5 * heads * context / width
    return unit * ((10 / tensor if sequence else 10) + 24 / tensor + scores / tensor)


def kv_bytes(*, rows: int, context: int, layers: int, kv_heads: int, head_width: int, bytes_each: float = 2) -> float:
    """Returns the bytes of the keys and values of so many tokens."""
    return 2 * rows * context * layers * kv_heads * head_width * bytes_each


def energy_kwh(*, device_hours: float, watts: float, pue: float = 1.0) -> float:
    """Returns the energy of devices that draw so much; ``pue`` is the centre's energy over its devices'."""
    return device_hours * watts * pue / 1000


def cost_usd(*, device_hours: float, usd_per_hour: float) -> float:
    """Returns what so many hours of a device cost."""
    return device_hours * usd_per_hour


def carbon_kg(*, kwh: float, grams_per_kwh: float) -> float:
    """Returns the carbon dioxide, or what warms as much, of the electricity."""
    return kwh * grams_per_kwh / 1000
