"""Scaling laws: how large a model, on how many tokens, for so many operations; and what loss to expect.

    operations      C = 6 N D                                    N parameters, D tokens
    best sizes      log10 D = slope log10 N + offset             along the frontier of approaches 1 to 3
    parametric      L(N, D) = E + A / N^alpha + B / D^beta       in nats per token
    repeated data   L(N', D'),  x' = U + U R* (1 - e^(-R / R*)),  R = x / U - 1

Sources: Hoffmann et al. 2022 (Chinchilla, arXiv:2203.15556); Besiroglu et al. 2024 (a replication, arXiv:2404.10102);
Kaplan et al. 2020 (arXiv:2001.08361); Muennighoff et al. 2023 (data-constrained, arXiv:2305.16264); Clark et al. 2022
(routed models, arXiv:2202.01169). Losses are those of each paper's own text and vocabulary: compare them only with
others of the same law.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from groundup.errors import ConfigError

FLOPS_PER_PARAM_TOKEN = 6.0
LEAST_FLOPS = 6e18  # of the runs behind the laws of loss: Hoffmann et al. 2022, section 3.2
PETAFLOP_S_DAY = 86_400e15  # operations: Brown et al. 2020 (arXiv:2005.14165), appendix D


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """The sizes that make the best use of operations, as a line between logarithms.

    Attributes:
        name: how the line was found.
        slope: the decimal logarithm of tokens by that of parameters.
        offset: that of the tokens of one parameter.
        source: where the line comes from.
    """

    name: str
    slope: float
    offset: float
    source: str

    def tokens(self, params: float) -> float:
        """Returns the tokens that are best for so many parameters."""
        return 10 ** (self.slope * math.log10(_above_zero("params", params)) + self.offset)

    def flops(self, params: float) -> float:
        """Returns the operations for which so many parameters are best."""
        return FLOPS_PER_PARAM_TOKEN * params * self.tokens(params)

    def best(self, flops: float) -> tuple[float, float]:
        """Returns the parameters and the tokens that are best for so many operations."""
        pairs = _above_zero("flops", flops) / FLOPS_PER_PARAM_TOKEN
        params = 10 ** ((math.log10(pairs) - self.offset) / (1 + self.slope))
        return params, pairs / params

    @property
    def params_exponent(self) -> float:
        """The power of the operations with which parameters grow."""
        return 1 / (1 + self.slope)


# Lines through the printed rows of 0.4 to 10,000 billion parameters, which lie within 0.8 % of them; but for the row of
# 67 billion, 5 to 6 % off all three lines, and approach 3's of 280 billion, whose tokens contradict its operations
# (20.1e12 printed, 3.52e25 / 6 / 280e9 = 20.95e12).
APPROACHES = (
    Frontier(
        name="1, minimum over training curves",
        slope=1.007614,
        offset=1.236412,
        source="Hoffmann et al. 2022, table 3",
    ),
    Frontier(name="2, isoFLOP profiles", slope=1.041035, offset=0.931344, source="Hoffmann et al. 2022, table A3"),
    Frontier(name="3, parametric loss", slope=1.180155, offset=-0.188424, source="Hoffmann et al. 2022, table A3"),
)


@dataclass(frozen=True, kw_only=True)
class Trade:
    """A smaller model that is trained for longer to the same loss.

    Attributes:
        share: of the best number of parameters.
        params: its own.
        tokens: that it takes; infinite where it never gets there.
        flops_ratio: its operations over those of the best model.
    """

    share: float
    params: float
    tokens: float
    flops_ratio: float


@dataclass(frozen=True, kw_only=True)
class Parametric:
    """The loss as a sum of what cannot be learnt, what the model's size costs, and what the text's length costs.

    Attributes:
        name: who fitted it.
        floor: E, nats per token.
        size: A.
        length: B.
        alpha: the power of parameters.
        beta: the power of tokens.
        source: where the constants come from.
        floor_ends: where 95% of fits to runs drawn anew have the floor; None where nobody published that.
    """

    name: str
    floor: float
    size: float
    length: float
    alpha: float
    beta: float
    source: str
    floor_ends: tuple[float, float] | None = None

    def interval(self, params: float, tokens: float) -> tuple[float, float] | None:
        """Returns the ends between which the loss lies as surely as the floor does; None where nobody knows that.

        Only the constants' own intervals are published, not how they go together. Far beyond the runs the loss is the
        floor and little else, so its interval is the floor's; nearer to the runs the terms make up for the floor, and
        the true interval is narrower.

        Raises:
            ConfigError: a figure is not above 0.
        """
        if self.floor_ends is None:
            return None
        reducible = self.loss(params, tokens) - self.floor
        return self.floor_ends[0] + reducible, self.floor_ends[1] + reducible

    def loss(self, params: float, tokens: float) -> float:
        """Returns the loss in nats per token after training on so many tokens, none of them twice.

        Raises:
            ConfigError: a figure is not above 0.
        """
        params, tokens = _above_zero("params", params), _above_zero("tokens", tokens)
        return self.floor + self.size / params**self.alpha + self.length / tokens**self.beta

    def best(self, flops: float) -> tuple[float, float]:
        """Returns the parameters and the tokens that are best for so many operations (equation 4)."""
        pairs = _above_zero("flops", flops) / FLOPS_PER_PARAM_TOKEN
        power = 1 / (self.alpha + self.beta)
        params = (self.alpha * self.size / (self.beta * self.length)) ** power * pairs ** (self.beta * power)
        return params, pairs / params

    def tokens(self, params: float) -> float:
        """Returns the tokens for which so many parameters are best."""
        ratio = self.beta * self.length / (self.alpha * self.size)
        return (ratio * _above_zero("params", params) ** self.alpha) ** (1 / self.beta)

    def tokens_for(self, loss: float, params: float) -> float:
        """Returns the tokens on which so many parameters reach a loss; infinite where they never do.

        Raises:
            ConfigError: a figure is not above 0.
        """
        left = _above_zero("loss", loss) - self.floor - self.size / _above_zero("params", params) ** self.alpha
        return (self.length / left) ** (1 / self.beta) if left > 0 else math.inf

    def over_training(self, flops: float, *, shares: tuple[float, ...] = (1 / 2, 1 / 4, 1 / 8)) -> tuple[Trade, ...]:
        """Returns what smaller models take to reach the loss that is best for so many operations.

        It is the overhead of de Vries 2023 (Go smol or go home): a smaller model is cheaper to use ever after.

        Args:
            flops: the operations.
            shares: the models' parameters, as shares of the best number.
        """
        params, tokens = self.best(flops)
        loss, trades = self.loss(params, tokens), []
        for share in shares:
            longer = self.tokens_for(loss, share * params)
            trades.append(Trade(share=share, params=share * params, tokens=longer, flops_ratio=share * longer / tokens))
        return tuple(trades)

    def params(self, tokens: float) -> float:
        """Returns the parameters for which so many tokens are best."""
        ratio = self.alpha * self.size / (self.beta * self.length)
        return (ratio * _above_zero("tokens", tokens) ** self.beta) ** (1 / self.alpha)

    def flops_for(self, loss: float, *, tokens_per_param: float | None = None) -> float:
        """Returns the operations that reach a loss, with the best sizes or at so many tokens for each parameter.

        Raises:
            ConfigError: the loss is not above the floor, or the law does not reach as far as it.
        """
        if _above_zero("loss", loss) <= self.floor:
            raise ConfigError(f"no training reaches a loss of {loss:g}: the law's floor is {self.floor:g} nats a token")
        if tokens_per_param is not None:
            _above_zero("tokens_per_param", tokens_per_param)
        low, high = 0.0, 60.0  # decimal logarithms of operations; the loss falls with them

        def reached(exponent: float) -> float:
            if tokens_per_param is None:
                return self.loss(*self.best(10**exponent))
            params = math.sqrt(10**exponent / FLOPS_PER_PARAM_TOKEN / tokens_per_param)
            return self.loss(params, tokens_per_param * params)

        if not reached(low) > loss > reached(high):
            raise ConfigError(f"a loss of {loss:g} takes less than one operation or more than 1e60; choose another")
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if reached(middle) > loss else (low, middle)
        return 10**high


HOFFMANN = Parametric(
    name="Hoffmann et al. 2022",
    floor=1.693374,
    size=406.401,
    length=410.7228,
    alpha=0.33917084,
    beta=0.2849083,
    source="equation 10, as its TeX source has it, for the printed figures are rounded",
)
BESIROGLU = Parametric(
    name="Besiroglu et al. 2024",
    floor=1.81686,
    size=482.00572,
    length=2085.4342,
    alpha=0.34781,
    beta=0.36585,
    source="the replication's notebook, 240 points",
    floor_ends=(1.769, 1.871),  # 4,000 draws; the same notebook
)


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """The loss of a text that is read more than once: what is read again teaches less each time.

    Attributes:
        law: the loss of parameters and tokens that count.
        data_decay: R*_D, the repetitions after which what is read again has lost 1 - 1/e of its worth.
        size_decay: R*_N, the same of parameters beyond those that the text can fill.
    """

    law: Parametric
    data_decay: float
    size_decay: float

    def loss(self, params: float, tokens: float, *, unique: float) -> float:
        """Returns the loss after so many tokens of a text that has ``unique`` of them.

        Raises:
            ConfigError: a figure is not above 0.
        """
        there = min(_above_zero("unique", unique), tokens)
        filled = min(self.law.params(there), params)
        return self.law.loss(worth(params, filled, self.size_decay), worth(tokens, there, self.data_decay))


def worth(read: float, there: float, decay: float) -> float:
    """Returns what so many are worth of which so many are there once: tokens that are new, or parameters they fill.

    Raises:
        ConfigError: a figure is not above 0.
    """
    read, there = _above_zero("read", read), _above_zero("there", there)
    return there + there * decay * -math.expm1(-(read / there - 1) / decay)


MUENNIGHOFF = Repeated(
    law=Parametric(
        name="Muennighoff et al. 2023",
        floor=math.exp(0.6254804),
        size=math.exp(6.255414),
        length=math.exp(7.3049974),
        alpha=0.3526596,
        beta=0.3526596,
        source="appendix A",
    ),
    data_decay=15.387756,
    size_decay=5.309743,
)


@dataclass(frozen=True, kw_only=True)
class Kaplan:
    """The laws of Kaplan et al. 2020, of parameters without embeddings, in nats per token.

    Attributes:
        size: N_c of equation 1.5, parameters; like the three below fitted to both together (table 2).
        alpha: its exponent.
        length: D_c, tokens.
        beta: its exponent.
        compute: C_c^min of equation 1.3, petaflop/s-days.
        gamma: its exponent.
    """

    size: float = 6.4e13
    alpha: float = 0.076
    length: float = 1.8e13
    beta: float = 0.103
    compute: float = 3.1e8
    gamma: float = 0.050

    def loss(self, params: float, tokens: float) -> float:
        """Returns the loss of a model stopped early on so many tokens (equation 1.5).

        Raises:
            ConfigError: a figure is not above 0.
        """
        params, tokens = _above_zero("params", params), _above_zero("tokens", tokens)
        return ((self.size / params) ** (self.alpha / self.beta) + self.length / tokens) ** self.beta

    def loss_of_flops(self, flops: float) -> float:
        """Returns the least loss that so many operations reach (equation 1.3).

        Raises:
            ConfigError: they are not above 0.
        """
        return (self.compute * PETAFLOP_S_DAY / _above_zero("flops", flops)) ** self.gamma

    def params(self, flops: float) -> float:
        """Returns the parameters that are best for so many operations (table 6).

        Raises:
            ConfigError: they are not above 0.
        """
        return 1.3e9 * (_above_zero("flops", flops) / PETAFLOP_S_DAY) ** 0.73


KAPLAN = Kaplan()


@dataclass(frozen=True, kw_only=True)
class Routed:
    """The loss of a model of which each token uses one expert of many (Clark et al. 2022, equations 1 and 11).

    log10 L = a log10 N + b log10 E' + c log10 N log10 E' + d, of N parameters that a token uses and E' experts, which
    count for less the more there are: 1 / E' = 1 / (E - 1 + (1 / start - 1 / most)^-1) + 1 / most.

    Attributes:
        name: of the router.
        a: see above; so are the three below.
        b: of experts.
        c: of both.
        d: of neither.
        start: what E' is for one expert.
        most: what it tends to.
    """

    name: str
    a: float
    b: float
    c: float
    d: float
    start: float
    most: float

    def loss(self, params: float, experts: float) -> float:
        """Returns the loss in nats per token of a token's parameters and so many experts, after 130 billion tokens.

        Raises:
            ConfigError: there are no parameters, or is less than one expert.
        """
        size, count = math.log10(_above_zero("params", params)), math.log10(self._counted(experts))
        return 10 ** (self.a * size + self.b * count + self.c * size * count + self.d)

    def dense_params(self, params: float, experts: float) -> float:
        """Returns the parameters of a model without experts that reaches the same loss."""
        slope = self.a + self.c * math.log10(self.start)
        return 10 ** ((math.log10(self.loss(params, experts)) - self.d - self.b * math.log10(self.start)) / slope)

    def _counted(self, experts: float) -> float:
        if not 1 <= experts < math.inf:
            raise ConfigError(f"experts={experts:g} must be at least 1")
        return 1 / (1 / (experts - 1 + 1 / (1 / self.start - 1 / self.most)) + 1 / self.most)


# Table 3 there: balanced experts as in BASE layers, chosen by reinforcement learning, chosen by a hash.
ROUTED = (
    Routed(name="S-BASE", a=-0.082, b=-0.108, c=0.009, d=1.104, start=1.847, most=314.478),
    Routed(name="RL-R", a=-0.083, b=-0.126, c=0.012, d=1.111, start=1.880, most=469.982),
    Routed(name="HASH", a=-0.087, b=-0.136, c=0.012, d=1.157, start=4.175, most=477.741),
)


def _above_zero(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ConfigError(f"{name}={value!r} must be a number above 0")
    return float(value)
