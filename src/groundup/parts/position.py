"""How tokens learn where they are: vectors added to the stream, or rotations of queries and keys.

    RoPE:  (x1, x2) <- (x1 cos a - x2 sin a, x2 cos a + x1 sin a),   a = position * theta^(-2i/r)
    Su et al. 2021 (arXiv:2104.09864), equation 34; the first half of the turned part pairs with the second.

Every position's module is a function ``forward(x, ctx)`` of vectors and their places. No module keeps a table in a
buffer: angles are computed in float32 from the places once a forward, so casting a model cannot round them.
Letters beyond the common ones: r, the part of a head's width that turns.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.context import Context
from groundup.errors import GenerationError, SpecError
from groundup.parts.linear import Embedding
from groundup.specs import AboveOne, Count, NotNegative, Positive, Size, Spec


class Position(Spec, abstract=True):
    """How a part learns the places of its tokens; ``build(width)`` gives a module ``forward(x, ctx)``."""

    def build(self, width: int) -> nn.Module:
        """Returns the module for a stream of ``width``.

        Raises:
            SpecError: this position is for the queries and keys of attention.
        """
        raise SpecError(f"{self!r} places queries and keys; give it to the attention instead")

    def of_heads(self, heads: int, head_width: int) -> HeadPlaces:
        """Returns the module for the queries and keys of attention.

        Raises:
            SpecError: this position is for the stream.
        """
        raise SpecError(f"{self!r} is added to the embeddings; give it to the model's embed instead")

    @property
    def longest(self) -> int | None:
        """How many places there are; None means no end."""
        return None

    @property
    def steady_until(self) -> int | None:
        """The longest text whose tokens are placed as in its beginnings, see `MixerSpec.steady_until`; None: any."""
        return None

    @property
    def bias_heads(self) -> int | None:
        """For how many heads it has a bias that layers share; None means that it has none."""
        return None

    @property
    def reads_bias(self) -> bool:
        """Whether it adds a bias that layers share to the scores."""
        return False

    def sized(self, *, width: int, context: int) -> Self:
        """Returns these positions for a stream of another width and so many places."""
        return self


class HeadPlaces(nn.Module):
    """How queries and keys learn their places: turned before they meet, or biased when they do.

    Attributes:
        biased: whether `bias` is more than nothing.
    """

    biased = False

    def forward(self, x: Float[Tensor, "B T H K"], ctx: Context) -> Float[Tensor, "B T H K"]:
        """Returns queries or keys with their places in them."""
        return x

    def bias(self, ctx: Context, keys: Int[Tensor, "B S"]) -> Float[Tensor, "#B H T S"] | None:
        """Returns what is added to the scores of the context's queries and of keys at these places; None: nothing."""
        return None


class NoPosition(Position):
    """Tells tokens nothing of their place."""

    def build(self, width: int) -> nn.Module:
        """Returns a module that leaves its input as it is."""
        return Unplaced()

    def of_heads(self, heads: int, head_width: int) -> HeadPlaces:
        """Returns a module that leaves its input as it is."""
        return HeadPlaces()


class Unplaced(nn.Module):
    """The identity on vectors, whatever their places."""

    def forward(self, x: Tensor, ctx: Context) -> Tensor:
        """Returns ``x``."""
        return x


class Learned(Position):
    """Adds a learnt vector for each place (Radford et al. 2019, GPT-2).

    Attributes:
        length: how many places there are.
        offset: unused rows of the table before the first place (2 in OPT and RoBERTa).
    """

    length: Size = dataclasses.field(kw_only=False)
    offset: Count = 0

    @property
    def longest(self) -> int:
        """How many places there are."""
        return self.length

    def sized(self, *, width: int, context: int) -> Self:
        """Returns these positions for a stream of another width and so many places."""
        return self.replace(length=context)

    def build(self, width: int) -> nn.Module:
        """Returns the module for a stream of ``width``."""
        return LearnedTable(self, width)


class LearnedTable(Embedding):
    """The learnt vectors of `Learned`, (offset + length, D)."""

    def __init__(self, spec: Learned, width: int) -> None:
        super().__init__(spec.offset + spec.length, width)
        self.spec = spec

    def forward(  # pyrefly: ignore[bad-override]: the table is read by place, not by the vectors it is added to
        self, x: Float[Tensor, "B T D"], ctx: Context
    ) -> Float[Tensor, "B T D"]:
        """Returns ``x`` plus the vectors of its places.

        Raises:
            GenerationError: the text goes on beyond the last learnt place.
        """
        length, offset = self.spec.length, self.spec.offset
        if ctx.reach > length:
            raise GenerationError(
                f"the text is {ctx.reach} tokens long and the model has learnt {length} places; shorten it"
            )
        return x + super().forward(ctx.positions + offset if offset else ctx.positions)


class Axial(Position):
    """Adds a learnt vector of two parts: for a place's row and for its column, where places fill a table row by row.

    Source: Kitaev et al. 2020 (Reformer, arXiv:2001.04451), appendix; a table of R x C places has R + C vectors.

    Attributes:
        shape: rows and columns.
        widths: of the two parts, which add up to the width of the stream.
        deviation: of the first weights.
    """

    shape: tuple[Size, Size]
    widths: tuple[Size, Size]
    deviation: NotNegative = 1.0

    @property
    def longest(self) -> int:
        """How many places there are."""
        return self.shape[0] * self.shape[1]

    def sized(self, *, width: int, context: int) -> Self:
        """Returns these positions for a stream of another width and so many places, in a table about square."""
        first, columns = max(1, width * self.widths[0] // sum(self.widths)), math.isqrt(context)
        return self.replace(widths=(first, width - first), shape=(-(-context // columns), columns))

    def build(self, width: int) -> nn.Module:
        """Returns the module for a stream of ``width``."""
        if sum(self.widths) != width:
            raise SpecError(f"widths={self.widths} of Axial do not add up to the width {width} of the stream")
        return AxialTable(self)


class AxialTable(nn.Module):
    """The module of `Axial`."""

    def __init__(self, spec: Axial) -> None:
        super().__init__()
        self.spec = spec
        self.row = Embedding(spec.shape[0], spec.widths[0])
        self.column = Embedding(spec.shape[1], spec.widths[1])

    def draw(self, generator: torch.Generator) -> None:
        """Draws the first weights."""
        for table in (self.row, self.column):
            nn.init.normal_(table.weight, std=self.spec.deviation, generator=generator)

    def forward(self, x: Float[Tensor, "B T D"], ctx: Context) -> Float[Tensor, "B T D"]:
        """Returns ``x`` plus the vectors of its places.

        Raises:
            GenerationError: the text goes on beyond the last place.
        """
        rows, columns = self.spec.shape
        if ctx.reach > rows * columns:
            raise GenerationError(
                f"the text is {ctx.reach} tokens long and the model has {rows * columns} places; shorten it"
            )
        return x + torch.cat([self.row(ctx.positions // columns), self.column(ctx.positions % columns)], -1)


class Sinusoidal(Position):
    """Adds fixed waves: sin and cos of place / theta^(2i/D) at 2i and 2i+1 (Vaswani et al. 2017, section 3.5)."""

    theta: AboveOne = 10_000.0

    def build(self, width: int) -> nn.Module:
        """Returns the module for a stream of ``width``."""
        if width % 2:
            raise SpecError(f"Sinusoidal positions need an even width, not {width}")
        return Waves(self.theta)


class Waves(nn.Module):
    """The fixed vectors of `Sinusoidal`."""

    def __init__(self, theta: float) -> None:
        super().__init__()
        self.theta = theta

    def forward(self, x: Float[Tensor, "B T D"], ctx: Context) -> Float[Tensor, "B T D"]:
        """Returns ``x`` plus the waves at its places."""
        angle = ctx.positions[..., None] * inverse_frequencies(x.shape[-1], self.theta, device=x.device)
        return x + torch.stack([angle.sin(), angle.cos()], -1).flatten(-2).to(x.dtype)


class Scaling(Spec, abstract=True):
    """How RoPE's frequencies are changed to reach beyond the length that was trained."""

    def scale(self, frequencies: Float[Tensor, "r2"], *, theta: float, ctx: Context) -> Float[Tensor, "*BT1 r2"]:
        """Returns the changed frequencies of the pairs, for each token of the context where they are not all alike."""
        raise NotImplementedError(type(self).__name__)

    @property
    def pairs(self) -> int | None:
        """For how many pairs it is; None means any number."""
        return None

    @property
    def steady_until(self) -> int | None:
        """The longest text that turns as its beginnings do, longer ones turning in one other way; None: any."""
        return None

    @property
    def amplitude(self) -> float:
        """What the rotated vectors are multiplied by."""
        return 1.0


class NoScaling(Scaling):
    """Leaves the frequencies as they are."""

    def scale(self, frequencies: Float[Tensor, "r2"], *, theta: float, ctx: Context) -> Float[Tensor, "*BT1 r2"]:
        """Returns ``frequencies``."""
        return frequencies


class LinearScaling(Scaling):
    """Squeezes places by ``factor`` (position interpolation, Chen et al. 2023, arXiv:2306.15595)."""

    factor: Positive

    def scale(self, frequencies: Float[Tensor, "r2"], *, theta: float, ctx: Context) -> Float[Tensor, "*BT1 r2"]:
        """Returns the frequencies over ``factor``."""
        return frequencies / self.factor


class NTKScaling(Scaling):
    """Raises theta so that the slowest pair is squeezed by ``factor`` and the fastest not at all.

    theta' = theta * factor^(r / (r - 2)): "NTK-aware" scaling, as written down in Peng et al. 2023
    (arXiv:2309.00071), definition 1.
    """

    factor: Positive

    def scale(self, frequencies: Float[Tensor, "r2"], *, theta: float, ctx: Context) -> Float[Tensor, "*BT1 r2"]:
        """Returns the frequencies of the raised theta."""
        turned = 2 * frequencies.shape[0]
        if turned == 2:
            return frequencies  # the only pair is the fastest
        return inverse_frequencies(turned, theta * self.factor ** (turned / (turned - 2)), device=frequencies.device)


class Llama3Scaling(Scaling):
    """Squeezes slow pairs by ``factor``, leaves fast ones, and blends between (Llama 3.1's rope_type ``llama3``).

    Attributes:
        factor: how much pairs of long wavelength are squeezed.
        low: pairs with a wavelength above ``original / low`` are squeezed whole.
        high: pairs with a wavelength below ``original / high`` are left as they are.
        original: the context that was trained before, in tokens.
    """

    factor: Positive = 8.0
    low: NotNegative = 1.0
    high: Positive = 4.0
    original: Size = 8192

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low >= self.high:
            raise SpecError(f"low={self.low} must be below high={self.high}: between them frequencies are blended")

    def scale(self, frequencies: Float[Tensor, "r2"], *, theta: float, ctx: Context) -> Float[Tensor, "*BT1 r2"]:
        """Returns the blended frequencies."""
        turns = self.original * frequencies / (2 * math.pi)
        keep = ((turns - self.low) / (self.high - self.low)).clamp(0, 1)
        return (1 - keep) * frequencies / self.factor + keep * frequencies


class YaRN(Scaling):
    """Squeezes pairs by their wavelength and sharpens attention (Peng et al. 2023, arXiv:2309.00071).

    Attributes:
        factor: how much longer the context is than the one that was trained.
        original: the context that was trained, in tokens.
        fast: pairs that turn more often than this over ``original`` are left as they are.
        slow: pairs that turn less often than this are squeezed whole.
        whole: whether the pairs between which the squeeze grows are rounded to whole ones, as published code does.
        sharpness: what rotated vectors are multiplied by; None means the paper's 0.1 ln(factor) + 1.
    """

    factor: Positive
    original: Size
    fast: Positive = 32.0
    slow: Positive = 1.0
    whole: bool = True
    sharpness: Positive | None = None

    @property
    def amplitude(self) -> float:
        """What the rotated vectors are multiplied by (equation 22)."""
        return yarn_amplitude(self.factor) if self.sharpness is None else self.sharpness

    def scale(self, frequencies: Float[Tensor, "r2"], *, theta: float, ctx: Context) -> Float[Tensor, "*BT1 r2"]:
        """Returns the blended frequencies (section 3.2)."""
        turned = 2 * frequencies.shape[0]
        fast, slow = (
            turned * math.log(self.original / (times * 2 * math.pi)) / (2 * math.log(theta))
            for times in (self.fast, self.slow)
        )  # the pairs, as fractions, that turn this often
        if self.whole:
            fast, slow = math.floor(fast), math.ceil(slow)
        first, last = max(fast, 0), min(slow, turned - 1)
        pair = torch.arange(turned // 2, dtype=torch.float32, device=frequencies.device)
        squeezed = ((pair - first) / (max(last - first, 0.001))).clamp(0, 1)
        return frequencies / self.factor * squeezed + frequencies * (1 - squeezed)


class LongRoPE(Scaling):
    """Divides each pair by a factor that was searched for, of two lists: for texts up to ``original``, and longer ones.

    Of whole texts, each document chooses by its own length, padding apart where the context tells it; in transformers
    the longest row of a batch chooses for all. With a state, the tokens of a call choose by the length that their row
    has then, and keys keep the angles that they were turned by, as in transformers' caches, token for token.
    `groundup.infer.generate` does not get there: it reads a text that grows beyond ``original`` again, as of the
    classes of transformers that of Phi-3 does.

    Source: Ding et al. 2024 (arXiv:2402.13753), section 3; the amplitude is that of the published Phi-3.

    Attributes:
        short: what the frequency of each pair is divided by in texts up to ``original``.
        long: the same for longer ones.
        factor: how much longer the context is than the one that was trained.
        original: the context that was trained, in tokens.
        sharpness: what rotated vectors are multiplied by; None means sqrt(1 + ln(factor) / ln(original)).
    """

    short: tuple[Positive, ...]
    long: tuple[Positive, ...]
    factor: Positive
    original: Size
    sharpness: Positive | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.short) != len(self.long):
            raise SpecError(f"LongRoPE has {len(self.short)} short and {len(self.long)} long factors; give as many")
        if self.original == 1 and self.sharpness is None:
            raise SpecError("LongRoPE with original=1 has no sharpness by default; give one, or a longer original")

    @property
    def pairs(self) -> int:
        """For how many pairs it is: one for each factor."""
        return len(self.short)

    @property
    def steady_until(self) -> int:
        """The longest text that turns by the short factors."""
        return self.original

    @property
    def amplitude(self) -> float:
        """What the rotated vectors are multiplied by."""
        if self.sharpness is not None:
            return self.sharpness
        return math.sqrt(1 + math.log(max(self.factor, 1.0)) / math.log(self.original))

    def scale(self, frequencies: Float[Tensor, "r2"], *, theta: float, ctx: Context) -> Float[Tensor, "B T1 1 r2"]:
        """Returns the frequencies over the factors for the length of each token's text."""
        short, long = (torch.tensor(factors, device=frequencies.device) for factors in (self.short, self.long))
        return frequencies / torch.where(ctx.text_lengths[..., None, None] > self.original, long, short)


def yarn_amplitude(factor: float, strength: float = 1.0) -> float:
    """Returns 0.1 strength ln(factor) + 1 for a context that is longer by a factor (YaRN, equation 22)."""
    return 0.1 * strength * math.log(max(factor, 1.0)) + 1


class RoPE(Position):
    """Turns pairs of each head's values by angles that grow with the place.

    Attributes:
        theta: the base of the wavelengths.
        fraction: how much of each head's width turns; the rest stays.
        scaling: how the frequencies are changed for longer contexts.
    """

    theta: AboveOne = 10_000.0
    fraction: float = 1.0
    scaling: Scaling = NoScaling()

    @property
    def steady_until(self) -> int | None:
        """The longest text that turns as its beginnings do: the scaling says it."""
        return self.scaling.steady_until

    def of_heads(self, heads: int, head_width: int) -> HeadPlaces:
        """Returns the module for heads of ``head_width``."""
        turned = int(head_width * self.fraction)
        if turned < 2 or turned % 2 or turned > head_width:
            raise SpecError(
                f"RoPE(fraction={self.fraction}) turns {turned} of a head's {head_width} values; "
                "choose a fraction in (0, 1] that makes an even number of at least 2"
            )
        if self.scaling.pairs not in (None, turned // 2):
            raise SpecError(
                f"{type(self.scaling).__name__} has factors for {self.scaling.pairs} pairs and RoPE turns "
                f"{turned // 2} of a head; give a factor for each"
            )
        return Rotation(self, turned)


class Rotation(HeadPlaces):
    """The rotation of `RoPE` for the first ``turned`` values of each head."""

    def __init__(self, spec: RoPE, turned: int) -> None:
        super().__init__()
        self.spec, self.turned, self.key = spec, turned, f"{spec!r} over {turned}"

    def table(self, ctx: Context, dtype: torch.dtype) -> Float[Tensor, "2 B T 1 r"]:
        """Returns cosines of all angles of the context, and sines with the sign that each half adds them with."""
        spec = self.spec
        frequencies = inverse_frequencies(self.turned, spec.theta, device=ctx.positions.device)
        angle = ctx.positions[..., None, None] * spec.scaling.scale(frequencies, theta=spec.theta, ctx=ctx)
        cos, sin = angle.cos() * spec.scaling.amplitude, angle.sin() * spec.scaling.amplitude
        return torch.stack([torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)]).to(dtype)

    def forward(self, x: Float[Tensor, "B T H K"], ctx: Context) -> Float[Tensor, "B T H K"]:
        """Returns ``x`` turned by the angles of its places."""
        cos, sin = ctx.once((self.key, x.dtype), lambda: self.table(ctx, x.dtype)).unbind(0)
        turned, rest = x.split([self.turned, x.shape[-1] - self.turned], -1)
        turned = turned * cos + turned.roll(self.turned // 2, -1) * sin
        return torch.cat([turned, rest], -1) if rest.shape[-1] else turned


class ALiBi(Position):
    """Lowers scores in proportion to the distance of query and key, by a slope of each head's own.

    Source: Press et al. 2022 (arXiv:2108.12409), section 3.

    Attributes:
        steepest: slopes fall geometrically from ``2^-(steepest / heads)`` to ``2^-steepest``.
    """

    steepest: Positive = 8.0

    def of_heads(self, heads: int, head_width: int) -> HeadPlaces:
        """Returns the module for so many heads."""
        return Slopes(heads, self.steepest)


class Slopes(HeadPlaces):
    """The module of `ALiBi`."""

    biased = True

    def __init__(self, heads: int, steepest: float) -> None:
        super().__init__()
        # Heads that are no power of two take every other slope of twice the next smaller power for the rest.
        whole = 2 ** math.floor(math.log2(heads))
        self.slopes = [2 ** (-steepest * (i + 1) / whole) for i in range(whole)]
        self.slopes += [2 ** (-steepest * (2 * i + 1) / (2 * whole)) for i in range(heads - whole)]

    def bias(self, ctx: Context, keys: Int[Tensor, "B S"]) -> Float[Tensor, "#B H T S"]:
        """Returns minus slope times distance for every head, query and key."""
        if keys is not ctx.positions:
            return self._bias(ctx.positions, keys)
        # Of whole sequences, layers of the same slopes share a bias, and so do rows whose places were not given.
        places = keys[:1] if ctx.reach else keys
        return ctx.once(("bias", *self.slopes), lambda: self._bias(places, places))

    def _bias(self, queries: Int[Tensor, "B T"], keys: Int[Tensor, "B S"]) -> Float[Tensor, "B H T S"]:
        # To a softmax over the past, slope times place is the same, but bfloat16 rounds it where keys are near.
        slopes = torch.tensor(self.slopes, device=keys.device)[:, None, None]
        return -slopes * (queries[:, None, :, None] - keys[:, None, None, :]).abs().float()


class RoundedALiBi(ALiBi):
    """ALiBi of places, not of distances, in bfloat16, and scaled as products of queries and keys are (falcon-rw).

    In full precision, slope times place would differ from slope times distance by what a softmax does not see.
    """

    def of_heads(self, heads: int, head_width: int) -> HeadPlaces:
        """Returns the module for so many heads."""
        return RoundedSlopes(heads, self.steepest, scale=head_width**-0.5)


class RoundedSlopes(Slopes):
    """The module of `RoundedALiBi`."""

    def __init__(self, heads: int, steepest: float, *, scale: float) -> None:
        super().__init__(heads, steepest)
        self.scale = scale

    def bias(self, ctx: Context, keys: Int[Tensor, "B S"]) -> Float[Tensor, "B H 1 S"]:
        """Returns slope times place for every head and key, which all queries share."""
        slopes = torch.tensor(self.slopes, dtype=torch.bfloat16, device=keys.device)[:, None, None]
        return (slopes * keys[:, None, None, :]).float() * self.scale


class RelativeBias(Position):
    """A learnt bias of each head for the distance of query and key, which all layers share (T5).

    Near distances have a bucket each, farther ones share buckets that grow logarithmically up to ``distance``; one
    bucket holds the rest. The table belongs to the embedding; attention reads it through `SharedBias`.
    Source: Raffel et al. 2020 (arXiv:1910.10683), section 2.1.

    Attributes:
        heads: of the attention that reads it.
        buckets: how many distances are told apart.
        distance: from which on they are not.
        both_ways: whether half of the buckets are for keys after the query.
    """

    heads: Size
    buckets: Size = 32
    distance: Size = 128
    both_ways: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        exact = self.buckets // (4 if self.both_ways else 2)
        if exact < 1 or self.distance <= exact:
            raise SpecError(f"{self!r} tells no distances apart; choose more buckets, or a distance above {exact}")

    @property
    def bias_heads(self) -> int:
        """For how many heads it has a bias that layers share."""
        return self.heads

    def build(self, width: int) -> nn.Module:
        """Returns the table, which leaves the stream as it is."""
        return RelativeTable(self)


class RelativeTable(Embedding):
    """The table of `RelativeBias`, (buckets, heads)."""

    def __init__(self, spec: RelativeBias) -> None:
        super().__init__(spec.buckets, spec.heads)
        self.spec = spec

    def forward(  # pyrefly: ignore[bad-override]: the stream is left as it is
        self, x: Float[Tensor, "B T D"], ctx: Context
    ) -> Float[Tensor, "B T D"]:
        """Returns ``x``, and lets the layers find the table."""
        ctx.shared[SHARED_TABLE] = self
        return x

    def bias(self, q: Int[Tensor, "B T"], k: Int[Tensor, "B S"]) -> Float[Tensor, "B H T S"]:
        """Returns the biases of queries and keys at these places."""
        ahead = k[:, None, :] - q[:, :, None]
        buckets, first = self.spec.buckets, torch.zeros_like(ahead)
        if self.spec.both_ways:
            buckets //= 2
            first = (ahead > 0) * buckets
            apart = ahead.abs()
        else:
            apart = (-ahead).clamp(min=0)
        exact = buckets // 2
        beyond = (apart.clamp(min=1) / exact).log() / math.log(self.spec.distance / exact) * (buckets - exact)
        far = (exact + beyond.long()).clamp(max=buckets - 1)
        bucket = first + torch.where(apart < exact, apart, far)
        return super().forward(bucket).permute(0, 3, 1, 2)


SHARED_TABLE = "the table of RelativeBias"


class SharedBias(Position):
    """Adds the bias of the model's `RelativeBias` to the scores."""

    @property
    def reads_bias(self) -> bool:
        """True."""
        return True

    def of_heads(self, heads: int, head_width: int) -> HeadPlaces:
        """Returns the module for attention."""
        return SharedPlaces()


class SharedPlaces(HeadPlaces):
    """The module of `SharedBias`."""

    biased = True

    def bias(self, ctx: Context, keys: Int[Tensor, "B S"]) -> Float[Tensor, "B H T S"]:
        """Returns the bias, which the first layer computes for all that see as many keys."""
        table = ctx.shared[SHARED_TABLE]
        return ctx.once(f"relative bias over {keys.shape[1]} keys", lambda: table.bias(ctx.positions, keys))


def inverse_frequencies(width: int, theta: float, *, device: torch.device) -> Float[Tensor, "r2"]:
    """Returns theta^(-2i/width) for i in 0 ... width/2 - 1, in float32."""
    return 1.0 / theta ** (torch.arange(0, width, 2, device=device).float() / width)
