"""How much memory generating takes: weights, state, and what one token's forward holds for a moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from groundup.model.decoder import Decoder
from groundup.planner import books
from groundup.planner.phantom import Meter


@dataclass(frozen=True, kw_only=True)
class DecodingMemory:
    """The components of the memory of generating; the program itself is not among them.

    Attributes:
        weights_bytes: of the model.
        state_bytes: of all rows, at their full length.
        activations_bytes: the most that the forward of the last token holds besides, its logits included.
    """

    weights_bytes: int
    state_bytes: int
    activations_bytes: int

    @property
    def peak_bytes(self) -> int:
        """The most that is held at once."""
        return self.weights_bytes + self.state_bytes + self.activations_bytes


def decoding_memory(
    spec: Decoder, *, rows: int, max_len: int, dtype: torch.dtype, device: str = "cpu"
) -> DecodingMemory:
    """Returns the memory of generating one token a row at a time.

    Args:
        spec: the model.
        rows: sequences side by side.
        max_len: the tokens that the state has room for; the last of them is generated.
        dtype: of weights, keys and values.
        device: the kind of device that is planned for; it need not be there.
    """
    meter = Meter(device)
    with meter, torch.no_grad():
        with _making(dtype):
            model = spec.with_distinct_layers().module()
        state = model.new_state(rows, max_len)
        state.reach = max_len - 1
        before = meter.mark()
        model(torch.zeros(rows, 1, dtype=torch.int64), state)
        peak = meter.peak_bytes - before
    itemsize = torch.empty((), dtype=dtype).element_size()
    return DecodingMemory(
        weights_bytes=books.params(spec) * itemsize,
        state_bytes=books.state_bytes(spec, rows=rows, max_len=max_len, dtype=dtype),
        activations_bytes=peak,
    )


@contextmanager
def _making(dtype: torch.dtype) -> Iterator[None]:
    """Makes weights in a type from the start; a phantom's type cannot be changed in place."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
