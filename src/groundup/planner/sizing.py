"""A decoder's design at another size, for comparing architectures at a matched budget.

What makes an architecture is kept: its mixers, norms, positions, the order of its layers, the shares of heads. Its
sizes, known by the names that fields have everywhere in the tree, go with the width. Depth goes with the width too, in
one way for all: a residual part for every 32 channels of the stream, as GPT-2 has them (12 layers of two parts, width
768), so that Mamba gets two of its layers where a Transformer has one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import lru_cache, partial
from typing import Any

from groundup.errors import ConfigError, SpecError
from groundup.model.decoder import Decoder
from groundup.model.layer import LayerSpec
from groundup.specs import Spec

CHANNELS_PER_PART = 32
WIDTHS = ("hidden", "channels", "table_width")  # go with the width of the stream
RANKS = ("rank", "latent", "query_latent", "decay_rank", "rate_rank", "gate_rank", "value_rank")  # down to a floor
HEAD_WIDTHS = (
    "head_width",
    "key_width",
    "value_width",
    "turned_width",
)  # stay, unless heads got too few
SHARED_HEADS = ("kv_heads", "key_heads", "groups")  # divide the heads
FEWEST_HEADS, NARROWEST_HEAD, LEAST_RANK, LEAST_WINDOW = 4, 16, 8, 64
OWN = ("layers", "width", "vocab", "context")  # settings of a decoder that are not its parts
WIDEST = 2**16
STEPS = (32, 16, 8, 4, 2)  # what a width is a multiple of: the first that meets the target

MORE_PERIODS = 6  # than the width asks for, up to which other widths are tried

Measure = Callable[[Decoder], float]
Found = tuple[float, int]  # how far off, and the number that it was made of


def sized(
    spec: Decoder, *, width: int, vocab: int, context: int, periods: int | None = None, inner: float = 1.0
) -> Decoder:
    """Returns the design of a decoder at another width.

    Args:
        spec: the design.
        width: of the stream.
        vocab: token ids.
        context: tokens that it reads at most; windows keep their share of it.
        periods: how often the pattern of its layers is repeated; None goes with the width.
        inner: times which the widths within its parts are what they would be, such as those of feed-forward parts.

    Raises:
        SpecError: the design does not fit this width.
    """
    first, period = _pattern(spec.layers)
    periods = _periods(spec, width) if periods is None else periods
    change = partial(_resized, ratio=width / spec.width, inner=inner, of_context=context / spec.context)
    made = {id(layer): change(layer) for layer in first + period}
    layers = tuple(made[id(layer)] for layer in first + period * periods)
    ends = {f.name: change(getattr(spec, f.name)) for f in fields(spec) if f.name not in OWN}
    places = ends["embed"].position.sized(width=width, context=context)
    ends["embed"] = ends["embed"].replace(position=places)
    return spec.replace(width=width, vocab=vocab, context=context, layers=layers, **ends)


def fitted(
    spec: Decoder, *, target: float, measure: Measure, vocab: int, context: int, tolerance: float = 0.02
) -> Decoder:
    """Returns the design of a decoder at the size at which a figure of it meets a target.

    Args:
        spec: the design.
        target: what the figure is to be.
        measure: the figure of a decoder; it has to grow with the width.
        vocab: token ids.
        context: tokens that it reads at most.
        tolerance: how far it may be off, as a share of the target.

    Raises:
        ConfigError: no width meets the target.
    """

    def search(low: int, high: int, make: Callable[[int], Decoder]) -> Found:
        """The nearest of the models that whole numbers make, by bisection."""
        best: Found = (float("inf"), low)
        while low <= high:
            middle = (low + high) // 2
            try:
                found = measure(make(middle))
            except SpecError:  # no such model, so none that is too small
                found = float("inf")
            best = min(best, (abs(found / target - 1), middle))
            low, high = (middle + 1, high) if found < target else (low, middle - 1)
        return best

    size = partial(sized, spec, vocab=vocab, context=context)
    _, count = search(1, WIDEST // STEPS[0], lambda n: size(width=n * STEPS[0]))
    periods = _periods(spec, count * STEPS[0])
    others = sorted(range(1, periods + MORE_PERIODS), key=lambda number: abs(number - periods))[1:]
    for repeated, step in [*((periods, step) for step in STEPS), *((number, STEPS[-1]) for number in others)]:
        make = partial(_of_width, size, step=step, periods=repeated)
        off, count = search(1, WIDEST // step, make)
        if off <= tolerance:
            return make(count)
    for step in STEPS:  # heads may be too coarse
        _, count = search(1, WIDEST // step, lambda n, step=step: size(width=n * step, periods=periods))
        near = partial(size, width=count * step, periods=periods)
        off, share = search(50, 200, lambda n, near=near: near(inner=n / 100))
        if off <= tolerance:
            return near(inner=share / 100)
    raise ConfigError(
        f"no size of this architecture comes within {tolerance:.0%} of {target:,.0f}; compare at another size, or "
        "leave it out"
    )


def _of_width(size: Callable[..., Decoder], count: int, *, step: int, periods: int) -> Decoder:
    return size(width=count * step, periods=periods)


def _periods(spec: Decoder, width: int) -> int:
    """How often the pattern of a design's layers is repeated at a width."""
    first, period = (sum(len(layer.parts) for layer in layers) for layers in _pattern(spec.layers))
    return max(1, round((width / CHANNELS_PER_PART - first) / period))


@lru_cache(64)
def _pattern(layers: tuple[LayerSpec, ...]) -> tuple[tuple[LayerSpec, ...], tuple[LayerSpec, ...]]:
    """Returns the layers that come first, and those that are repeated from there on: the fewest of both together."""
    count = len(layers)
    options = ((first + period, first, period) for first in range(count) for period in range(1, count - first + 1))
    _, first, period = min(
        (size, first, period)
        for size, first, period in options
        if all(layers[i] == layers[i - period] for i in range(first + period, count))
    )
    return layers[:first], layers[first : first + period]


def _resized(value: Any, *, ratio: float, inner: float, of_context: float) -> Any:
    change = partial(_resized, ratio=ratio, inner=inner, of_context=of_context)
    if isinstance(value, tuple):
        return tuple(map(change, value))
    if not isinstance(value, Spec):
        return value
    was = {f.name: getattr(value, f.name) for f in fields(value)}
    new = {name: change(item) for name, item in was.items()}
    for name in (name for name in WIDTHS if was.get(name)):
        new[name] = max(8, 8 * round(was[name] * ratio * inner / 8))
    for name in (name for name in RANKS if was.get(name)):
        new[name] = max(min(was[name], LEAST_RANK), round(was[name] * ratio))
    if "heads" in was:
        new |= _heads(was, new, ratio)
    if "size" in was:  # of a window
        new["size"] = max(min(was["size"], LEAST_WINDOW), round(was["size"] * of_context))
    return value.replace(**new)


def _heads(was: dict[str, Any], new: dict[str, Any], ratio: float) -> dict[str, int]:
    widths = {name: was[name] for name in HEAD_WIDTHS if name in was}
    heads = was["heads"] * ratio
    while widths and round(heads) < min(was["heads"], FEWEST_HEADS) and min(widths.values()) > NARROWEST_HEAD:
        narrower = {name: 1 << (width - 1).bit_length() - 1 for name, width in widths.items()}  # powers of two
        heads, widths = heads * min(widths.values()) / min(narrower.values()), narrower
    count = max(1, round(heads))
    if not widths and "channels" in new:  # heads that cut channels into blocks
        count = _divisor(new["channels"], count)
    shared = {name: was[name] for name in SHARED_HEADS if name in was}
    return {
        "heads": count,
        **widths,
        **{
            name: count if n == was["heads"] else _divisor(count, n * count / was["heads"])
            for name, n in shared.items()
        },
    }


def _divisor(number: int, most: float) -> int:
    """The largest divisor of a number that is at most ``most``, and 1 at least."""
    return max(n for n in range(1, number + 1) if number % n == 0 and n <= max(most, 1))


def lengthened(spec: Decoder, context: int) -> Decoder:
    """Returns a decoder that reads so many tokens at most, with a place for each if its places are learnt."""
    places = spec.embed.position.sized(width=spec.width, context=context)
    return spec.replace(context=context, embed=spec.embed.replace(position=places))
