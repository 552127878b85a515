"""What a plan of serving takes for granted, said in sentences, and where its rules come from."""

from __future__ import annotations

from collections.abc import Iterator

from groundup.infer.language_model import ROWS
from groundup.model.encoder_decoder import EncoderDecoder
from groundup.planner import units
from groundup.planner.engine import EXCHANGE_SECONDS, HOST_BYTES_PER_SECOND, SLACK_SHARE, Engine
from groundup.planner.grids import Grid
from groundup.planner.hardware import ATTENTION_SHARE, MEMORY_SHARE, PRODUCT_SHARE
from groundup.planner.memory import PROCESS_BYTES
from groundup.planner.parallel import REACHED

SOURCES = (
    "Memory and operations: the model's own parts, rehearsed without memory on PyTorch's meta device.",
    "Time: rates of PyTorch's kernels measured on this machine, or shares of those that makers publish.",
    "A step reads all weights and the state: Pope et al. 2022 (arXiv:2211.05102), section 2.",
    "Several devices share each matrix: Shoeybi et al. 2019 (Megatron-LM, arXiv:1909.08053), section 3.",
)


def assumptions(engine: Engine, grid: Grid | None, *, batch: int, read: int, **given: float | None) -> tuple[str, ...]:
    """What was assumed, in sentences.

    Args:
        engine: what generates.
        grid: whose electricity it is; None where nobody says.
        batch: texts side by side.
        read: tokens of a prompt.
        **given: the settings that the caller may have left open.
    """
    return (*_of_texts(engine, batch, read, given), *_of_engine(engine, batch), *_of_bill(engine, grid, given))


def _of_texts(engine: Engine, batch: int, read: int, given: dict[str, float | None]) -> Iterator[str]:
    if given["context"] is None:
        yield "Texts are as long as the model's context, up to 8,192 tokens."
    if given["prompt"] is None:
        what = "A source has" if isinstance(engine.spec, EncoderDecoder) else "A prompt is half of the context,"
        yield f"{what} {read:,} tokens."
    yield "A token is the likeliest one. Its time is that of the step that fills the context, the longest."
    if engine.own and batch > ROWS:
        yield f"groundup's generate reads {ROWS} texts side by side; here all {batch:,} are."
    if _has_experts(engine):
        yield (
            "A mixture's experts are as likely as each other, so a step reads those that its tokens are expected to "
            "choose."
        )


def _has_experts(engine: Engine) -> bool:
    layers = [layer for stack in engine.spec.stacks.values() for layer in stack.layers]
    return any("experts" in vars(part.mixer) for layer in layers for part in layer.every_part.values())


def _of_engine(engine: Engine, batch: int) -> Iterator[str]:
    kind = str(engine.dtype).removeprefix("torch.")
    yield f"Weights, state and products are in {kind}, without autocast, as groundup.load has them; logits in float32."
    if engine.own and batch > 1:
        yield "When a text ends before the others, their state is copied, so it is there twice for a moment."
    if not engine.own:
        yield (
            "groundup generates on one device with all weights in one type yet; the rest is told by formulas of the "
            "field, for an engine that does not copy the state when texts end."
        )
    if engine.format is not None:
        tables = "and tables of tokens " if engine.format.tables else ""
        yield (
            f"Matrices {tables}are held in {engine.format.name}, {engine.format.bits:.4g} bits a weight with their "
            f"scales, and multiplied in {kind}: what turning them into it costs is not counted."
        )
    if engine.devices > 1:
        yield (
            f"The devices share each matrix and the state's heads, and add up the stream after each part: "
            f"{EXCHANGE_SECONDS * 1e6:g} microseconds and the bytes at {units.percent(REACHED)} of the link's rate."
        )
    if engine.offload:
        rate = HOST_BYTES_PER_SECOND
        if engine.device is not None and engine.device.host_bytes_per_second is not None:
            rate = engine.device.host_bytes_per_second
        yield (
            f"Layers that do not fit are read from the host's memory at each pass, at {units.percent(REACHED)} of "
            f"{rate / 1e9:g} GB/s, while nothing else happens."
        )
    if engine.machine.device in SLACK_SHARE:
        yield (
            f"The allocator wastes as much as comes and goes, and the program takes "
            f"{units.bytes_(PROCESS_BYTES['cpu'])}."
        )


def _of_bill(engine: Engine, grid: Grid | None, given: dict[str, float | None]) -> Iterator[str]:
    device = engine.device
    if device is None:
        yield "Nothing else runs on the machine."
    else:
        yield (
            f"Products reach {units.percent(PRODUCT_SHARE)} of the published rate of {device.name}, attention "
            f"{units.percent(ATTENTION_SHARE)}, memory {units.percent(MEMORY_SHARE)}."
        )
        yield f"The figures of {device.name} are from {device.source or 'a file of your own'}."
        if device.recalled:
            yield f"No source at hand says {', '.join(device.recalled)} of it."
    if given["watts"] is None:
        yield "The power that the machine draws is not known, so its energy is not told."
    else:
        yield f"Each device draws {given['watts']:g} W all the time; the centre's own energy is not counted."
    if given["usd_per_hour"] is not None:
        said = "" if device is None or device.usd_per_hour != given["usd_per_hour"] else f" ({device.price})"
        yield f"An hour of one costs {given['usd_per_hour']:g} USD{said}."
    if grid is not None:
        year = "" if grid.year is None else f", {grid.year}"
        yield f"A kilowatt-hour in {grid.name} comes with {grid.grams_per_kwh:g} g of CO2 equivalent{year}."
