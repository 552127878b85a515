"""How the next token is chosen: a chain of pure functions from logits to logits, then one draw.

  repetition penalty   l / r if l > 0 else l * r, of tokens seen           Keskar et al. 2019 (arXiv:1909.05858), 4.1
  temperature          l / t                                               Ackley et al. 1985, equation 5
  top-k                the k largest                                       Fan et al. 2018 (arXiv:1805.04833), 5.4
  top-p                the fewest whose probabilities reach p              Holtzman et al. 2019 (arXiv:1904.09751), 3.1
  min-p                those of at least m times the largest probability   Nguyen et al. 2024 (arXiv:2407.01082), 3
  the draw             argmax p / e,  e from an exponential distribution   Maddison et al. 2014 (arXiv:1411.0030), 2

What is left out of a choice has a logit of minus infinity. Order and edge cases are those of transformers, so that
settings mean the same in both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from groundup.errors import GenerationError
from groundup.specs import Spec

Logits = Float[Tensor, "B V"]
Filter = Callable[[Tensor], Tensor]

COLDEST = 1e-3  # below it, logits over the temperature may leave the range of float32
MOST_BEAMS = 1024
STRONGEST = 10  # length penalty; beyond it, powers of long texts may leave the range of numbers


def repetition_penalty(logits: Logits, *, seen: Bool[Tensor, "B V"], penalty: float) -> Logits:
    """Returns logits in which tokens that were seen are less likely, for a penalty above 1."""
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def temperature(logits: Logits, *, degree: float) -> Logits:
    """Returns logits of a distribution that is sharper below 1 and flatter above."""
    return logits / degree


def top_k(logits: Logits, *, count: int) -> Logits:
    """Returns the ``count`` largest logits of each row, and those equal to the last of them."""
    least = logits.topk(min(count, logits.shape[-1])).values[:, -1:]
    return logits.masked_fill(logits < least, -math.inf)


def top_p(logits: Logits, *, mass: float) -> Logits:
    """Returns the fewest logits of each row, largest first, whose probabilities reach ``mass``; at least one."""
    ordered, order = logits.sort(-1)
    out = ordered.softmax(-1).cumsum(-1) <= 1 - mass
    out[:, -1] = False
    return logits.masked_fill(out.scatter(-1, order, out), -math.inf)


def min_p(logits: Logits, *, share: float) -> Logits:
    """Returns the logits of tokens with at least ``share`` of the probability of their row's likeliest."""
    chance = logits.softmax(-1)
    return logits.masked_fill(chance < share * chance.amax(-1, keepdim=True), -math.inf)


def draw(logits: Logits, *, noise: Sequence[torch.Generator]) -> Int[Tensor, "B"]:
    """Returns a token of each row, drawn with the softmax of its logits by the row's own generator.

    A race of exponential clocks instead of a cumulative sum: rows do not depend on each other, and the result is the
    same at every run on every device.
    """
    # An exponential number is -log of a uniform one, which is drawn 5 times as fast; log 0 is a clock that never rings.
    uniform = [torch.rand(logits.shape[1], generator=one, device=one.device, dtype=logits.dtype) for one in noise]
    clocks = torch.stack(uniform).log_().neg_()
    return (logits.softmax(-1) / clocks).argmax(-1)


class Sampling(Spec):
    """How the next token is chosen.

    Attributes:
        temperature: 0 always takes the likeliest token; 1 draws from the model's own distribution.
        top_k: draw from this many of the likeliest tokens; None means from all.
        top_p: draw from the likeliest tokens that together have this probability, in (0, 1]; None means from all.
        min_p: draw from tokens with this share of the likeliest one's probability, in [0, 1]; None means from all.
        repetition_penalty: above 1, tokens of the prompt and of the text so far are less likely; 1 changes nothing.
        beams: above 1, so many beginnings of each text compete and the likeliest text is taken, see
            `groundup.infer.beams`.
        length_penalty: a text's log-probability is divided by its length to this power, so above 0 longer texts win
            more often. For beams.
        early_stopping: when no better text is looked for, once as many have ended as there are beams: False, when the
            best that goes on is behind at its present length; True, at once; "never", when none could win at any
            length. For beams.
        seed: of the draws; every row starts from it, so what a prompt gives does not depend on its neighbours.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.temperature == 0 or self.temperature >= COLDEST):
            self._refuse("temperature", f"0, which takes the likeliest token, or a number of at least {COLDEST:g}")
        if self.top_k is not None and self.top_k < 1:
            self._refuse("top_k", "a whole number of at least 1, or leave it out to draw from all tokens")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            self._refuse("top_p", "a number above 0 and up to 1")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            self._refuse("min_p", "a number from 0 to 1")
        if not self.repetition_penalty > 0:
            self._refuse("repetition_penalty", "a number above 0, such as 1.1; 1 changes nothing")
        if not 0 <= self.seed < 2**63:
            self._refuse("seed", "a whole number from 0 to 2^63 - 1")
        self._check_beams()
        idle = [
            name
            for name, off in (("top_k", None), ("top_p", 1), ("min_p", 0))
            if getattr(self, name) not in (None, off)
        ]
        if self.greedy and idle:
            raise GenerationError(
                f"{idle[0]}={getattr(self, idle[0])} has no effect at temperature=0, which always takes the likeliest "
                f"token; set a temperature, such as 1.0, or leave {idle[0]} out"
            )

    def _check_beams(self) -> None:
        if not 1 <= self.beams <= MOST_BEAMS:
            self._refuse("beams", f"a whole number from 1, which takes token by token, to {MOST_BEAMS:,}")
        if not abs(self.length_penalty) <= STRONGEST:
            self._refuse("length_penalty", f"a number from -{STRONGEST} to {STRONGEST}; 1 is the mean per token")
        if self.early_stopping not in (True, False, "never"):
            self._refuse("early_stopping", "False, True or 'never'")
        if self.beams > 1 and not self.greedy:
            raise GenerationError(
                f"beams={self.beams} looks for the likeliest text and temperature={self.temperature} draws one; leave "
                "one of them out"
            )
        idle = [name for name, off in (("length_penalty", 1), ("early_stopping", False)) if getattr(self, name) != off]
        if self.beams == 1 and idle:
            raise GenerationError(
                f"{idle[0]}={getattr(self, idle[0])} has no effect without beams; give beams, such as 4, or leave "
                f"{idle[0]} out"
            )

    def _refuse(self, name: str, expected: str) -> None:
        raise GenerationError(f"{name}={getattr(self, name)} cannot be used; choose {expected}")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0

    @property
    def looks_back(self) -> bool:
        """Whether a choice depends on the tokens before it, beyond the logits."""
        return self.repetition_penalty != 1

    def chain(self, seen: Bool[Tensor, "B V"] | None = None) -> list[Filter]:
        """Returns the functions from logits to logits that these settings ask for, in order.

        Args:
            seen: which tokens each row holds already; needed where the settings `looks_back`.
        """
        steps: list[Filter] = []
        if self.looks_back:
            assert seen is not None
            steps.append(partial(repetition_penalty, seen=seen, penalty=self.repetition_penalty))
        if not self.greedy and self.temperature != 1:
            steps.append(partial(temperature, degree=self.temperature))
        if self.top_k is not None:
            steps.append(partial(top_k, count=self.top_k))
        if self.top_p is not None and self.top_p < 1:
            steps.append(partial(top_p, mass=self.top_p))
        if self.min_p:
            steps.append(partial(min_p, share=self.min_p))
        return steps

    def choose(
        self, logits: Logits, *, noise: Sequence[torch.Generator], seen: Bool[Tensor, "B V"] | None = None
    ) -> Int[Tensor, "B"]:
        """Returns the next token of each row.

        Args:
            logits: of the next token.
            noise: a generator a row, which a draw moves on; not touched where the choice is greedy.
            seen: which tokens each row holds already; needed where the settings `looks_back`.
        """
        for change in self.chain(seen):
            logits = change(logits)
        return logits.argmax(-1) if self.greedy else draw(logits, noise=noise)
