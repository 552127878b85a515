"""What a plan takes for granted, said in sentences, and where its rules come from."""

from __future__ import annotations

import math
from collections.abc import Iterator

from groundup.planner import units
from groundup.planner.grids import Grid
from groundup.planner.hardware import ATTENTION_SHARE, MEMORY_SHARE, PRODUCT_SHARE, Device
from groundup.planner.memory import PROCESS_BYTES, SLACK_SHARE

CHINCHILLA_TOKENS_PER_PARAM = 20  # Hoffmann et al. 2022 (arXiv:2203.15556), table 3: 400M to 8.0B, 1B to 20.2B, ...
SHARED_CONTEXT = 2**13  # tokens of a row on several devices: longer ones are taught at the end (Llama 3, section 3.4)
MOST_BATCH_TOKENS = 2**24  # Llama 3's largest, Grattafiori et al. 2024 (arXiv:2407.21783), section 3.4.1
BATCH_TOKENS = 2**19  # GPT-3's smallest sizes: 0.5M, Brown et al. 2020 (arXiv:2005.14165), table 2.1

SOURCES = (
    "Operations: 2 for each weight and token in the forward, attention in full; Chowdhery et al. 2022, appendix B.",
    "20 tokens for each parameter: Hoffmann et al. 2022 (arXiv:2203.15556), table 3.",
    "Loss: Besiroglu et al. 2024 (arXiv:2404.10102), of the runs of Hoffmann et al. 2022.",
    "Petaflop/s-days: Brown et al. 2020 (arXiv:2005.14165), appendix D.",
    "Memory: the model's own parts, rehearsed without memory on PyTorch's meta device.",
    "Time: rates of PyTorch's kernels measured on this machine, or shares of those that makers publish.",
    "Several devices: ZeRO (arXiv:1910.02054), Megatron (arXiv:2104.04473, 2205.05198), Llama 3 (arXiv:2407.21783).",
)


def usual_batch(params: float, tokens: float) -> int:
    """Returns the tokens of a step on several devices: a power of two.

    Source: DeepSeek-AI 2024 (arXiv:2401.02954), section 3.1: 0.2920 C^0.3271 tokens for C operations.
    """
    best = 0.2920 * (6 * params * tokens) ** 0.3271
    return 2 ** round(math.log2(min(max(best, BATCH_TOKENS), MOST_BATCH_TOKENS)))


def assumptions(
    hardware: Device | None, grid: Grid | None, *, devices: int, kind: str, **given: float | None
) -> tuple[str, ...]:
    """What was assumed, in sentences.

    Args:
        hardware: the published device; None for this machine.
        grid: whose electricity it is; None where nobody says.
        devices: how many there are.
        kind: of device: ``cpu``, ``cuda`` or ``mps``.
        **given: the settings that the caller may have left open.
    """
    left_open = {
        "tokens": f"It trains on {CHINCHILLA_TOKENS_PER_PARAM} tokens for each parameter (Hoffmann et al. 2022).",
        "batch_tokens": f"A step reads {BATCH_TOKENS:,} tokens, or one row where rows are longer.",
        "rows": "A micro-batch has as many rows as fit and make the products large enough.",
        "context": "Rows are as long as the model's context.",
        "watts": "The power that the machine draws is not known, so its energy is not told.",
    }
    if devices > 1:
        left_open["batch_tokens"] = "A step reads as many tokens as DeepSeek's law says (arXiv:2401.02954), up to 16M."
        left_open["context"] = f"Rows are as long as the model's context, up to {SHARED_CONTEXT:,} tokens."
    elif given["rows"]:
        left_open["batch_tokens"] = "A step is one micro-batch."
    said = [sentence for name, sentence in left_open.items() if not given[name]]
    if hardware is None:
        said.append("Time is that of steps alone: no data loading, saving or evaluation, no other load on the machine.")
    else:
        said += list(_of_published(hardware))
    if devices > 1:
        said.append(
            "groundup trains on one device yet: how several share the work, and what that takes, is told by the "
            "field's formulas, with weights in 16 bits, and gradients, optimizer state and a copy of the weights in 32."
        )
    else:
        said.append(
            "Weights, gradients and optimizer state are float32; matrix products run in the stated precision by "
            "autocast."
        )
    said.append("Backwards cost twice their forwards; norms, activations and softmax are not counted as operations.")
    if grid is not None:
        year = "" if grid.year is None else f", {grid.year}"
        said.append(f"A kilowatt-hour in {grid.name} comes with {grid.grams_per_kwh:g} g of CO2 equivalent{year}.")
    if kind in SLACK_SHARE:
        said.append(
            f"What the allocator cannot use is told by a replay of its heap, or else as "
            f"{units.percent(SLACK_SHARE[kind])} of what is alive; the program itself takes "
            f"{units.bytes_(PROCESS_BYTES[kind])} unless told otherwise."
        )
    return tuple(said)


def planned_only(*, checkpointing: str, offload: bool, low: str | None) -> tuple[str, ...]:
    """What is said of a way to train that groundup has not learnt yet."""
    said = {
        "groundup keeps every activation yet: a step whose layers make them again is planned from the rehearsed one.": (
            checkpointing != "none"
        ),
        "groundup keeps the optimizer's state on the device yet: a host that holds and updates it is planned by the "
        "formulas of ZeRO-Offload (arXiv:2101.06840); that it has as much memory is taken for granted.": offload,
        "groundup does not multiply in float16 yet: planned are bfloat16's bytes, at float16's rates; scaling the loss "
        "takes next to nothing (Micikevicius et al. 2018, arXiv:1710.03740).": low == "float16",
        "groundup does not multiply in float8 yet: all products but attention's are planned at its rates, which no run "
        "reaches in all of them, and what is kept in 16 bits, with weights as else (Micikevicius et al. 2022, "
        "arXiv:2209.05433; DeepSeek-V3, arXiv:2412.19437, section 3.3).": low == "float8",
    }
    return tuple(sentence for sentence, holds in said.items() if holds)


def of_power(*, watts: float | None, watts_cap: float | None, pue: float, embodied: bool) -> tuple[str, ...]:
    """What is taken for granted of the energy."""
    said = {
        "The energy is that of the devices; the centre's own is not counted.": watts is not None and pue == 1,
        f"The centre takes {pue:g} times the energy of its devices (PUE).": watts is not None and pue != 1,
        "Under a cap the speed goes with the power to the 0.31, as that of V100s that trained language models did "
        "(McDonald et al. 2022, arXiv:2205.09646); below half of the power the curve is held to nothing.": (
            watts_cap is not None
        ),
        "Making a device and its share of a server came with 462 kg of CO2 equivalent, over 85% of six years (Luccioni "
        "et al. 2022, arXiv:2211.02001).": embodied,
    }
    return tuple(sentence for sentence, holds in said.items() if holds)


def _of_published(device: Device) -> Iterator[str]:
    """What is taken for granted of a device that is not at hand."""
    yield (
        f"Products reach {units.percent(PRODUCT_SHARE)} of the published rate of {device.name}, attention "
        f"{units.percent(ATTENTION_SHARE)}, memory {units.percent(MEMORY_SHARE)}; time is that of steps alone."
    )
    yield f"The figures of {device.name} are from {device.source or 'a file of your own'}."
    if device.recalled:
        yield f"No source at hand says {', '.join(device.recalled)} of it."
    if device.watts is not None:
        yield f"Each was designed for {device.watts:g} W, which it is taken to draw all the time unless told otherwise."
    if device.usd_per_hour is not None:
        yield f"An hour of one costs {device.usd_per_hour:g} USD ({device.price or 'by your own file'})."
