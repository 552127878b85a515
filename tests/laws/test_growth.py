"""What keeps no more of a longer text takes twice the work for twice the text, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from groundup.model.decoder import Decoder
from groundup.ops import linear_scan, wkv
from groundup.planner import books
from laws.examples import CONTEXT, DECODERS

pytestmark = pytest.mark.usefixtures("unchecked_signatures")

SHORT, LONG = 1024, 2048


def state_bytes(spec: Decoder, max_len: int) -> int:
    return books.state_bytes(spec, rows=1, max_len=max_len, dtype=torch.float32)


def lengthened(spec: Decoder) -> Decoder:
    """Returns the model with places for a longer text."""
    position = spec.embed.position
    table = position if position.longest is None else position.replace(length=LONG)
    return spec.replace(context=LONG, embed=spec.embed.replace(position=table))


STEADY = [name for name, spec in DECODERS.items() if state_bytes(spec, CONTEXT) == state_bytes(spec, CONTEXT // 2)]
OURS = {  # operations that a compiler is to see as one
    torch.ops.groundup.linear_scan.default: linear_scan._scan,
    torch.ops.groundup.linear_scan_backward.default: linear_scan._backward,
    torch.ops.groundup.running_top.default: wkv._running_top,
}


class Written(TorchDispatchMode):
    """Counts the numbers that operations write, those inside ours too."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in OURS:
            with self:
                return OURS[func](*args)
        made = func(*args, **(kwargs or {}))
        views = func.is_view if isinstance(func, torch._ops.OpOverload) else False
        for each in made if isinstance(made, tuple | list) else [made]:
            if isinstance(each, Tensor) and not views:
                self.count += each.numel()
        return made


def written(model: Any, tokens: int) -> int:
    model.zero_grad()
    with Written() as counter:
        model(torch.zeros(1, tokens, dtype=torch.long)).sum().backward()
    return counter.count


@pytest.mark.parametrize("name", STEADY)
def test_twice_the_text_takes_twice_the_work(name):
    model = lengthened(DECODERS[name]).build()
    assert written(model, LONG) <= 2.05 * written(model, SHORT)


def test_the_recurrent_ones_keep_no_more_of_a_longer_text():
    recurrent = {"linear attention", "delta rule", "state spaces", "rwkv", "rwkv, matrices", "recurrent"}
    assert recurrent <= set(STEADY)
