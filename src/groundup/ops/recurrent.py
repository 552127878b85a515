"""Recurrent networks over given weights: Elman's, with gates, and with a cell of long memory.

    rnn_tanh, rnn_relu:  h_t = act(a_t + b_t)
    gru:   r, z = sigmoid(a_t + b_t);  n = tanh(a_t + r b_t);              h_t = (1 - z) n + z h_{t-1}
    lstm:  i, f, o = sigmoid(a_t + b_t);  g = tanh(a_t + b_t);  c_t = f c_{t-1} + i g;  h_t = o tanh(c_t)
    with a_t = W_in x_t + bias_in and b_t = W_rec h_{t-1} + bias_rec, of which each gate reads its own rows.

Sources: Elman 1990 (Cognitive Science 14:179); Hochreiter and Schmidhuber 1997 (Neural Computation 9:1735), with the
forget gate of Gers et al. 2000; Cho et al. 2014 (arXiv:1406.1078), with the reset after the product, as cuDNN has it.
The gates' rows come in PyTorch's order: r, z, n and i, f, g, o. Letters: H hidden, P pieces of sequences.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from groundup.devices import kind_of

KERNELS: dict[str, Any] = {
    "rnn_tanh": torch._VF.rnn_tanh,  # pyrefly: ignore[missing-attribute]
    "rnn_relu": torch._VF.rnn_relu,  # pyrefly: ignore[missing-attribute]
    "gru": torch._VF.gru,  # pyrefly: ignore[missing-attribute]
    "lstm": torch._VF.lstm,  # pyrefly: ignore[missing-attribute]
}
GATES = {"rnn_tanh": 1, "rnn_relu": 1, "gru": 3, "lstm": 4}


class Memory(NamedTuple):
    """What a network has in mind: its output, and the cell, which only an LSTM reads and writes."""

    h: Float[Tensor, "B H"]
    c: Float[Tensor, "B C"]


class Weights(NamedTuple):
    """The two maps of a network, with the rows of its gates below each other."""

    w_in: Float[Tensor, "rows D"]
    w_rec: Float[Tensor, "rows H"]
    bias_in: Float[Tensor, "rows"]
    bias_rec: Float[Tensor, "rows"]


def step(cell: str, a: Float[Tensor, "B rows"], b: Float[Tensor, "B rows"], memory: Memory) -> Memory:
    """Returns what the network has in mind after a token, of which it has made ``a`` and of its output ``b``."""
    h, c = memory
    if cell == "gru":
        (ar, az, an), (br, bz, bn) = a.chunk(3, -1), b.chunk(3, -1)
        z = (az + bz).sigmoid()
        return Memory((1 - z) * (an + (ar + br).sigmoid() * bn).tanh() + z * h, c)
    if cell == "lstm":
        i, f, g, o = (a + b).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return Memory(o.sigmoid() * c.tanh(), c)
    return Memory((a + b).relu() if cell == "rnn_relu" else (a + b).tanh(), c)


def reference(
    cell: str,
    x: Float[Tensor, "B T D"],
    weights: Weights,
    memory: Memory,
    *,
    starts: Bool[Tensor, "B T"] | None = None,
    lengths: Int[Tensor, "B"] | None = None,
) -> tuple[Float[Tensor, "B T H"], Memory]:
    """Returns the outputs and what is in mind after the last token: the definition.

    Args:
        cell: which network, a key of `KERNELS`.
        x: inputs.
        weights: the network's maps.
        memory: what is in mind before the first token.
        starts: where a document begins, of which nothing before is remembered.
        lengths: how many tokens of each row are real; the others change nothing that is kept.
    """
    outputs = []
    for t in range(x.shape[1]):
        if starts is not None:
            memory = Memory(*(m.masked_fill(starts[:, t, None], 0.0) for m in memory))
        a = F.linear(x[:, t], weights.w_in, weights.bias_in)
        new = step(cell, a, F.linear(memory.h.to(a.dtype), weights.w_rec, weights.bias_rec), memory)
        outputs.append(new.h.to(a.dtype))
        if lengths is not None:
            real = (t < lengths)[:, None]
            new = Memory(*(torch.where(real, n, m.to(n.dtype)) for n, m in zip(new, memory, strict=True)))
        memory = new
    return torch.stack(outputs, 1), memory


def run(
    cell: str,
    x: Float[Tensor, "B T D"],
    weights: Weights,
    memory: Memory,
    *,
    starts: Bool[Tensor, "B T"] | None = None,
    lengths: Int[Tensor, "B"] | None = None,
) -> tuple[Float[Tensor, "B T H"], Memory]:
    """Returns what `reference` does, through PyTorch's kernels (cuDNN, oneDNN) where there is more than one token.

    Documents, and rows of several lengths, run beside each other in pieces whose lengths are powers of two. A cell that
    is wider than the inputs stays so: all is then computed as widely.
    """
    if x.shape[1] == 1:
        return reference(cell, x, weights, memory, starts=starts, lengths=lengths)
    wide = torch.promote_types(x.dtype, memory.c.dtype)
    if memory.c.shape[1] and wide != x.dtype:
        with torch.autocast(x.device.type, enabled=False):
            y, memory = run(cell, x.to(wide), weights, memory, starts=starts, lengths=lengths)
        return y.to(x.dtype), memory
    w_in, w_rec, bias_in, bias_rec = (w.to(x.dtype) for w in weights)
    h, c = (m.to(x.dtype) for m in memory)
    without_values = torch.compiler.is_compiling() or type(x) is not Tensor  # or while a plan is made
    operation = torch.ops.groundup.recurrent if without_values else _run
    y, h, c = operation(cell, x, w_in, w_rec, bias_in, bias_rec, h, c, starts, lengths)
    if cell == "lstm" and type(x) is not Tensor and kind_of(x) == "cpu":
        y = _Workspace.apply(y, max(x.shape[-1], y.shape[-1]))
    return y, Memory(h, c)


class _Workspace(torch.autograd.Function):
    """What oneDNN keeps of a sequence for the backward, while a plan is made.

    Of torch 2.13's workspaces of 14 shapes, within 1%: for each token 36.4 bytes a hidden unit and 24.4 a unit of the
    wider of inputs and hidden units in float32, 22.4 and 20.3 in bfloat16.
    """

    @staticmethod
    def forward(ctx: Any, y: Tensor, width: int) -> Tensor:
        own, wider = (36.4, 24.4) if y.dtype == torch.float32 else (22.4, 20.3)
        size = y.shape[0] * y.shape[1] * (own * y.shape[2] + wider * width)
        ctx.save_for_backward(y.new_empty(int(size), dtype=torch.uint8))
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        ctx.saved_tensors  # noqa: B018 - without it they would be freed later
        return grads[0], None


def _run(
    cell: str,
    x: Tensor,
    w_in: Tensor,
    w_rec: Tensor,
    bias_in: Tensor,
    bias_rec: Tensor,
    h: Tensor,
    c: Tensor,
    starts: Tensor | None,
    lengths: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    weights = [w_in, w_rec, bias_in, bias_rec]
    if starts is None and lengths is None:
        return _dense(cell, x, weights, h, c)
    return _in_pieces(cell, x, weights, h, c, starts, lengths)


def _dense(cell: str, x: Tensor, weights: list[Tensor], h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Runs sequences of one length: one layer, forward, batch first, with biases, nothing dropped."""
    kernel, settings = KERNELS[cell], (weights, True, 1, 0.0, False, False, True)
    if cell == "lstm":
        y, h, c = kernel(x, (h[None], c[None]), *settings)
        return y, h[0], c[0]
    y, h = kernel(x, h[None], *settings)
    return y, h[0], c.clone()


def _in_pieces(
    cell: str, x: Tensor, weights: list[Tensor], h: Tensor, c: Tensor, starts: Tensor | None, lengths: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Runs documents beside each other: of each, as many tokens at once as the highest bit of what is left of it says.

    Nothing is padded, and all pieces of a length are rows of one dense run; all runs together are at most twice as long
    as the longest document.
    """
    rows, tokens = x.shape[:2]
    first = torch.zeros(rows, tokens, dtype=torch.bool, device=x.device) if starts is None else starts.clone()
    if starts is not None:
        h, c = (m.masked_fill(starts[:, :1], 0.0) for m in (h, c))
    first[:, 0] = True
    document = first.flatten().cumsum(0).view(rows, tokens) - 1
    begin = first.flatten().nonzero()[:, 0]
    size = document.flatten().bincount() if lengths is None else lengths
    h, c = (m.new_zeros(len(begin), m.shape[1]).index_copy(0, document[:, 0], m) for m in (h, c))
    flat, places, outputs = x.flatten(0, 1), [begin[:0]], [x.new_zeros(0, h.shape[1])]
    for level in reversed(range(tokens.bit_length())):
        chosen = (size >> level & 1).nonzero()[:, 0]
        if not len(chosen):
            continue
        place = begin[chosen, None] + torch.arange(1 << level, device=x.device)
        y, new_h, new_c = _dense(cell, flat[place], weights, h[chosen], c[chosen])
        h, c = h.index_copy(0, chosen, new_h), c.index_copy(0, chosen, new_c)
        begin = begin.index_add(0, chosen, torch.full_like(chosen, 1 << level))
        places.append(place.flatten())
        outputs.append(y.flatten(0, 1))
    y = x.new_zeros(rows * tokens, h.shape[1]).index_copy(0, torch.cat(places), torch.cat(outputs))
    return y.unflatten(0, (rows, tokens)), h[document[:, -1]], c[document[:, -1]]


# Where values are not known, a whole sequence is one operation: traced, the kernels would become a graph as long as the
# sequence, and documents cannot be found. Its backward runs the forward once more.
_INPUTS = (
    "str cell, Tensor x, Tensor w_in, Tensor w_rec, Tensor bias_in, Tensor bias_rec, Tensor h, Tensor c, "
    "Tensor? starts, Tensor? lengths"
)
_library = torch.library.Library("groundup", "FRAGMENT")
_library.define(f"recurrent({_INPUTS}) -> (Tensor, Tensor, Tensor)")
_library.define(f"recurrent_backward(Tensor[] grads, {_INPUTS}) -> Tensor[]")


def _forward(*inputs: Any) -> Any:
    return tuple(t.contiguous() for t in _run(*inputs))


def _backward(grads: list[Tensor], cell: str, *inputs: Any) -> list[Tensor]:
    leaves, (starts, lengths) = [t.detach().requires_grad_() for t in inputs[:7]], inputs[7:]
    with torch.enable_grad():
        x, w_in, w_rec, bias_in, bias_rec, h, c = leaves
        made = _run(cell, x, w_in, w_rec, bias_in, bias_rec, h, c, starts, lengths)
        return [g.contiguous() for g in torch.autograd.grad(made, leaves, grads, materialize_grads=True)]


_library.impl("recurrent", _forward, "CompositeExplicitAutograd")
_library.impl("recurrent_backward", _backward, "CompositeExplicitAutograd")


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.cell = inputs[0]
    ctx.save_for_backward(*inputs[1:])


def _grads(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    return None, *torch.ops.groundup.recurrent_backward(list(grads), ctx.cell, *ctx.saved_tensors), None, None


def _shapes(cell: str, x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    h = rest[4]
    return x.new_empty(*x.shape[:2], h.shape[1]), torch.empty_like(h), torch.empty_like(h)


torch.library.register_fake("groundup::recurrent", _shapes, lib=_library)
torch.library.register_fake(
    "groundup::recurrent_backward", lambda grads, cell, *inputs: [torch.empty_like(t) for t in inputs[:7]], lib=_library
)
torch.library.register_autograd("groundup::recurrent", _grads, setup_context=_save, lib=_library)


def _flops(cell: str, x: Any, w_in: Any, w_rec: Any, *rest: Any, out_shape: Any = None, **settings: Any) -> int:
    return 2 * x[0] * x[1] * (w_in[0] * w_in[1] + w_rec[0] * w_rec[1])


register_flop_formula(torch.ops.groundup.recurrent)(_flops)
register_flop_formula(torch.ops.groundup.recurrent_backward)(
    lambda grads, *inputs, **settings: 2 * _flops(*inputs)  # the forward that it runs once more is not counted
)
