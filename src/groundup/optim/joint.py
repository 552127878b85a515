"""Several torch optimizers that step as one, and their state as tensors named after the parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from groundup.errors import CheckpointError
from groundup.optim.muon import MuonOptimizer

SLOTS: dict[type[torch.optim.Optimizer], set[str]] = {  # what each keeps of a parameter
    torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"},
    MuonOptimizer: {"momentum_buffer"},
}


class JointOptimizer:
    """Several torch optimizers that step as one; each parameter belongs to one of them.

    Their parameters must be named (torch's ``param_names``). Every group keeps the rate it was made with as its peak.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = tuple(parts)
        for group in self.param_groups:
            group["peak_lr"] = group["lr"]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts; changing one changes the part."""
        return [group for part in self.parts for group in part.param_groups]

    def scale_lr(self, factor: float) -> None:
        """Sets the learning rate of every group to ``factor`` of its peak."""
        for group in self.param_groups:
            group["lr"] = group["peak_lr"] * factor

    def step(self) -> None:
        """Moves every parameter that has a gradient, once."""
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        """Frees all gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)


def state_tensors(optimizer: JointOptimizer) -> dict[str, Tensor]:
    """Returns the state of the optimizer by name: ``layers.0.mix.mixer.q.weight.exp_avg``, in any order of groups.

    The tensors are the optimizer's own, not copies. A parameter that never had a gradient has no state.
    """
    return {
        f"{name}.{slot}": value
        for part in optimizer.parts
        for name, parameter in _named(part)
        for slot, value in part.state.get(parameter, {}).items()
    }


def load_state_tensors(optimizer: JointOptimizer, tensors: Mapping[str, Tensor]) -> None:
    """Replaces the state of the optimizer by what `state_tensors` returned for one like it; takes over the tensors.

    Raises:
        CheckpointError: the state is that of other parameters or of another kind of optimizer.
    """
    states: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, slot = key.rpartition(".")
        states.setdefault(name, {})[slot] = tensor

    for part in optimizer.parts:
        _load(part, states)
    if states:
        raise CheckpointError(
            f"the optimizer state has {_some(states)}, which this run does not train; "
            "resume with the model and the optimizer that wrote it"
        )


def _load(part: torch.optim.Optimizer, states: dict[str, dict[str, Tensor]]) -> None:
    """Gives the part its own share of the states, and takes it out of them."""
    loaded = {}
    for index, (name, parameter) in enumerate(_named(part)):
        if name not in states:
            continue
        state = loaded[index] = states.pop(name)
        if set(state) != SLOTS[type(part)]:
            raise CheckpointError(
                f"the optimizer state of {name} is {_some(state)}, where {type(part).__name__} keeps "
                f"{_some(SLOTS[type(part)])}; resume with the optimizer that wrote it"
            )
        for slot, value in state.items():
            if slot != "step" and value.shape != parameter.shape:
                raise CheckpointError(
                    f"the optimizer state {name}.{slot} has the shape {tuple(value.shape)}, the model's parameter "
                    f"{tuple(parameter.shape)}; resume with the model that wrote it"
                )
    part.load_state_dict({"state": loaded, "param_groups": part.state_dict()["param_groups"]})


def _named(part: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """Yields the parameters with their names, in the order in which torch numbers them."""
    for group in part.param_groups:
        yield from zip(group["param_names"], group["params"], strict=True)


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
