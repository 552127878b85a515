"""Formats in which weights are held with fewer bits while they are read, for plans: groundup has none of them yet.

bytes of a matrix = weights * bits / 8        bits with the scales of its blocks
"""

from __future__ import annotations

from dataclasses import dataclass

from groundup.errors import ConfigError, nearest

GGUF = "llama.cpp, ggml/src/ggml-common.h @01243c5, the blocks' static_asserts"


@dataclass(frozen=True, kw_only=True)
class Format:
    """How a weight is held.

    Attributes:
        name: as it is asked for.
        bits: of a weight, scales included.
        tables: whether tables of tokens are held so too; where not, they stay as they are. Maps always are.
        source: of the figure.
    """

    name: str
    bits: float
    tables: bool = False
    source: str


def _of_blocks(name: str, *, bytes_each: int, weights: int) -> Format:
    return Format(name=name, bits=8 * bytes_each / weights, tables=True, source=GGUF)


FORMATS = {
    made.name: made
    for made in (
        Format(name="int8", bits=8, source="gpt-fast @0f925b5, README: 8 bits, a scale for each row of a matrix"),
        Format(name="fp8", bits=8, source="Micikevicius et al. 2022 (arXiv:2209.05433): a scale for each matrix"),
        Format(
            name="int4",
            bits=4 + (16 + 4) / 128,
            source="Frantar et al. 2022 (GPTQ, arXiv:2210.17323): groups of 128, each with a 16-bit scale and a 4-bit "
            "zero; from memory",
        ),
        Format(name="int4-g32", bits=4 + 2 * 16 / 32, source="gpt-fast @0f925b5, README: groups of 32"),
        Format(name="nf4", bits=4 + 32 / 64, source="Dettmers et al. 2023 (QLoRA, arXiv:2305.14314), section 3"),
        Format(
            name="nf4-dq",
            bits=4 + 8 / 64 + 32 / (64 * 256),
            source="Dettmers et al. 2023 (QLoRA, arXiv:2305.14314), section 3: 0.127 bits of scales",
        ),
        _of_blocks("q8_0", bytes_each=34, weights=32),
        _of_blocks("q6_k", bytes_each=210, weights=256),
        _of_blocks("q5_k", bytes_each=176, weights=256),
        _of_blocks("q5_1", bytes_each=24, weights=32),
        _of_blocks("q5_0", bytes_each=22, weights=32),
        _of_blocks("q4_k", bytes_each=144, weights=256),
        _of_blocks("q4_1", bytes_each=20, weights=32),
        _of_blocks("q4_0", bytes_each=18, weights=32),
        _of_blocks("mxfp4", bytes_each=17, weights=32),
        _of_blocks("q3_k", bytes_each=110, weights=256),
        _of_blocks("q2_k", bytes_each=84, weights=256),
    )
}


def find(name: str) -> Format:
    """Returns the format of a name, in letters of any size.

    Raises:
        ConfigError: there is no such format.
    """
    found = FORMATS.get(str(name).lower())
    if found is None:
        hint = nearest(str(name).lower(), FORMATS) or f"choose from {', '.join(FORMATS)}"
        raise ConfigError(f"weights={name!r} is no format of weights; {hint}")
    return found
