"""The sizes by which devices share a step, as they are written: ``dp=64,tp=8,pp=2``."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args

from groundup.errors import ConfigError, nearest
from groundup.planner.published import Recompute


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How devices share the work.

    Attributes:
        dp: replicas, each of which reads rows of its own.
        tp: devices that share each matrix.
        pp: stages of a pipeline of layers.
        cp: devices that share the tokens of a row.
        ep: of the replicas, those that share the experts of a mixture: each holds ``1 / ep`` of them.
        micro: rows of a micro-batch.
        zero: what replicas share: 1 the optimizer's state, 2 gradients too, 3 weights too (FSDP).
        rounds: how often a micro-batch goes through the pipeline, each time through fewer layers.
        recompute: what layers make again in the backward: ``none``; ``selective``, all but what products of matrices
            make; ``full``, all but their input.
        offload: 1 where the optimizer's state lies in the hosts' memory, and the hosts update the weights.
    """

    dp: int = 1
    tp: int = 1
    pp: int = 1
    cp: int = 1
    ep: int = 1
    micro: int = 1
    zero: int = 1
    rounds: int = 1
    recompute: Recompute = "none"
    offload: int = 0

    @property
    def devices(self) -> int:
        """How many devices it takes; those that share experts are replicas."""
        return self.dp * self.tp * self.pp * self.cp

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of its parallel dimensions."""
        return self.dp, self.tp, self.pp, self.cp, self.ep

    @property
    def short(self) -> str:
        """What differs from a device alone, as `parse` reads it."""
        usual = asdict(Layout())
        said = [f"{name}={size}" for name, size in asdict(self).items() if size != usual[name]]
        return ",".join(said) or "dp=1"

    def __str__(self) -> str:
        return ",".join(f"{name}={size}" for name, size in asdict(self).items())


def parse(text: str) -> Layout:
    """Returns the layout that a text such as ``dp=64,tp=8,pp=2`` names; what it leaves out is 1.

    Raises:
        ConfigError: a size does not exist or is no whole number above 0.
    """
    known = {field.name: field.default for field in fields(Layout)}
    given: dict[str, Any] = {}
    for item in text.split(","):
        name, _, value = item.partition("=")
        name = name.strip()
        if name not in known:
            hint = nearest(name, known) or f"known: {', '.join(known)}"
            raise ConfigError(f"layout={text!r} has no size {name!r}; {hint}")
        if name in given:
            raise ConfigError(f"layout={text!r} says {name} twice; say it once")
        if name == "recompute":
            given[name] = value
        elif re.fullmatch(r"[0-9]{1,9}", value.strip()) and (name in ("zero", "offload") or int(value) > 0):
            given[name] = int(value)
        else:
            raise ConfigError(f"layout={text[:80]!r} has {name}={value[:40]!r}; expected a whole number above 0")
    if given.get("recompute", "none") not in get_args(Recompute):
        raise ConfigError(f"recompute={given['recompute']!r} is unknown; choose from {', '.join(get_args(Recompute))}")
    return Layout(**given)
