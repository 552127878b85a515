"""What a model is made of, counted on the very modules that will run: parameters, operations, state.

The model is built on the meta device with each distinct layer once, so 126 equal layers cost as much as one.

Conventions. A product of matrices costs 2 operations for each pair of numbers multiplied and added; norms,
activations and the softmax are not counted, as in torch.utils.flop_counter. Attention counts all T x S scores,
whether a mask hides half of them or not. The backward of a product is two, one for the gradient of either side, in the
first layer too, because its input is the embedding, which is trained; and attention's two products have four in their
backward. A product with a constant, or with a state that begins as zeros, has one, and one whose result nothing reads
has none: mixers say so, see `Mixer.mix_backward_flops`. All are model operations: what a backward computes once more,
scores in a fused kernel, spans of a scan or the parts of a reversible layer, is work done, not work needed, and is not
counted. Source: Chowdhery et al. 2022 (PaLM, arXiv:2204.02311), appendix B.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import nn

from groundup.errors import SpecError
from groundup.mixers.base import Mixer
from groundup.model.decoder import Decoder
from groundup.model.layer import LayerModule
from groundup.model.model import Model, ModelModule
from groundup.model.stack import Stack, StackModule
from groundup.objectives.objective import Shape
from groundup.parts.linear import Counted, ExpertLinear
from groundup.parts.tie import used
from groundup.specs import walk
from groundup.state import State

BACKWARD_PER_FORWARD = 2  # of a weight matrix, see the conventions above


@dataclass(frozen=True)
class Blueprint:
    """A model on the meta device with each of its distinct layers once.

    Attributes:
        model: the model with the distinct layers of each stack, in the order in which they first come.
        counts: how many times each of them is in the whole model, by its path: ``layers.0``, ``encoder.layers.0``.
    """

    model: ModelModule
    counts: Mapping[str, int]

    @property
    def layers(self) -> Iterator[tuple[LayerModule, int]]:
        """The distinct layers, each with its count."""
        for path, count in self.counts.items():
            layer = self.model.get_submodule(path)
            assert isinstance(layer, LayerModule)
            yield layer, count

    @property
    def stacks(self) -> list[StackModule]:
        """The model's stacks."""
        return [module for module in self.model.modules() if isinstance(module, StackModule)]


@lru_cache(maxsize=16)
def blueprint(spec: Model) -> Blueprint:
    """Returns the model of a spec without its memory.

    Raises:
        SpecError: the spec is not one of a model.
    """
    if not isinstance(spec, Model):
        raise SpecError(f"{type(spec).__name__} cannot be planned; expected a model, as groundup.spec(MODEL) gives")
    counts = {
        join(name, f"layers.{i}"): count
        for name, stack in spec.stacks.items()
        for i, count in enumerate(Counter(stack.layer_kinds).values())
    }
    with torch.device("meta"):
        return Blueprint(spec.with_distinct_layers().build(), counts)


def join(stack: str, name: str) -> str:
    """Returns the path of what is called ``name`` in a stack."""
    return f"{stack}.{name}" if stack else name


def params_by_part(spec: Model) -> dict[str, int]:
    """Returns the parameters of ``embed``, ``layers.mix``, ``layers.ffn``, ``norm`` and ``head``, stack by stack.

    A tied head owns none and is not listed.
    """
    plan, parts = blueprint(spec), Counter()
    for name, parameter in plan.model.named_parameters():
        layer = re.match(r"(.*?layers)\.\d+", name)
        if layer:
            part = f"{layer[1]}.{name[layer.end() + 1 :].split('.')[0]}"
            parts[part] += parameter.numel() * plan.counts[layer[0]]
        else:
            parts[name.rpartition(".")[0]] += parameter.numel()
    return dict(parts)


def params(spec: Model) -> int:
    """Returns the number of parameters, shared ones once."""
    return sum(params_by_part(spec).values())


def active_params(spec: Model) -> int:
    """Returns the number of parameters that take part in a token: all but those of experts it does not go to."""
    return params(spec) - sum(count * _idle_params(layer) for layer, count in blueprint(spec).layers)


def embedding_params(spec: Model) -> int:
    """Returns the parameters of tables that are looked up: tokens and learnt positions, not an untied head."""
    return sum(embedding_params_by_table(spec).values())


def embedding_params_by_table(spec: Model) -> dict[str, int]:
    """Returns the parameters of each table that is looked up, by its path."""
    named = blueprint(spec).model.named_modules()
    tables = {path: module for path, module in named if isinstance(module, nn.Embedding)}
    return {path: table.weight.numel() for path, table in tables.items() if table.weight is not None}  # borrowed: none


def forward_flops_per_token(spec: Model, *, context: int) -> float:
    """Returns the operations of the forward per token, averaged over whole rows of ``context`` tokens.

    Of an encoder-decoder that is per token of the target, with a source as long.
    """
    return forward_flops(spec, Shape.even(context)) / context


def forward_flops(spec: Model, shape: Shape) -> int:
    """Returns the operations of the forward of a row of this shape."""
    return sum(forward_flops_by_part(spec, shape).values())


def forward_flops_by_part(spec: Model, shape: Shape) -> dict[str, int]:
    """Returns the operations of the forward of a row by path: ``embed``, each distinct layer's copies, ``head``."""
    return _flops_by_part(spec, shape)


def train_flops_per_token(spec: Model, *, context: int) -> float:
    """Returns the operations of forward and backward per token, averaged over whole rows of ``context`` tokens.

    What a backward computes once more is not counted, see `again_flops`.
    """
    return train_flops(spec, Shape.even(context)) / context


def train_flops(spec: Model, shape: Shape) -> int:
    """Returns the operations of forward and backward of a row of this shape, see `train_flops_per_token`."""
    return forward_flops(spec, shape) + backward_flops(spec, shape)


def backward_flops(spec: Model, shape: Shape) -> int:
    """Returns the operations of the backward of a row of this shape, see the conventions above."""
    return sum(_flops_by_part(spec, shape, back=True).values())


def again_flops(spec: Model, shape: Shape) -> int:
    """Returns the operations of the forwards that layers which keep nothing compute once more, of a row."""
    return sum(layer.again * of_layers for layer, of_layers in _layer_flops(spec, shape))


def _flops_by_part(spec: Model, shape: Shape, *, back: bool = False) -> dict[str, int]:
    """The operations of a row's forward, or of its backward, as `forward_flops_by_part` names them."""
    paths = blueprint(spec).counts
    layers = _layer_flops(spec, shape, back=back)
    flops = {path: of_layers for path, (_, of_layers) in zip(paths, layers, strict=True)}
    for name, tokens in _tokens(spec, shape).items():
        stack = blueprint(spec).model.get_submodule(name)
        assert isinstance(stack, StackModule)
        ends = (_row_flops(part, shape.predicted, back=back) for part in (stack.transform, stack.head))
        flops[join(name, "embed")] = _row_flops(stack.embed, tokens, back=back)
        flops[join(name, "head")] = sum(ends)
    return flops


def _layer_flops(spec: Model, shape: Shape, *, back: bool = False) -> Iterator[tuple[LayerModule, int]]:
    """The distinct layers, each with the operations of all its copies' forwards, or backwards, of a row."""
    plan, tokens = blueprint(spec), _tokens(spec, shape)
    for (layer, count), path in zip(plan.layers, plan.counts, strict=True):
        yield layer, count * _row_flops(layer, tokens[_stack_of(path)], memory=shape.source, back=back)


def _tokens(spec: Model, shape: Shape) -> dict[str, int]:
    """The tokens that each stack reads of a row; the last one writes."""
    *_, last = spec.stacks
    return {name: shape.ids if name == last else shape.source for name in spec.stacks}


def state_bytes(spec: Model, *, rows: int, max_len: int, dtype: torch.dtype) -> int:
    """Returns the bytes of the state of ``rows`` rows with room for ``max_len`` tokens each: encoders have none."""
    return sum(state_bytes_by_layer(spec, rows=rows, max_len=max_len, dtype=dtype).values())


def state_bytes_by_layer(spec: Model, *, rows: int, max_len: int, dtype: torch.dtype) -> dict[str, int]:
    """Returns the bytes of `state_bytes` by the path of each distinct layer, those of all its copies."""
    plan = blueprint(spec)
    writing = {path: n for path, n in plan.counts.items() if isinstance(spec.stacks[_stack_of(path)], Decoder)}
    return {path: n * _state_bytes(plan.model.get_submodule(path), rows, max_len, dtype) for path, n in writing.items()}


def _stack_of(path: str) -> str:
    """The name of the stack of a layer's path."""
    return path.rpartition("layers.")[0].rstrip(".")


@dataclass(frozen=True, kw_only=True)
class Node:
    """A module of the tree that ``groundup show`` prints; its figures are those of one copy.

    Attributes:
        name: its name in its parent; layers that are equal and follow each other are one node, ``0-11``.
        kind: the class of the module.
        shape: of its weight, or empty.
        params: parameters, those of the children included.
        flops_per_token: operations of the forward per token at the given context, children included.
        state_bytes: of one row with room for the given context, children included.
        count: how many copies there are.
        children: its modules.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    params: int
    flops_per_token: float
    state_bytes: int
    count: int = 1
    children: tuple[Node, ...] = ()


def tree(spec: Model, *, context: int | None = None, dtype: torch.dtype = torch.bfloat16) -> Node:
    """Returns the tree of a model's modules; equal neighbouring layers are one node with their count.

    Args:
        spec: the model.
        context: tokens of a row, for attention's operations and the state; None means the spec's own.
        dtype: of keys and values in the state.
    """
    context = context or spec.longest
    plan = blueprint(spec)
    inside = [node for name, stack in spec.stacks.items() for node in _stack(plan, name, stack, context, dtype)]
    return Node(
        name="",
        kind=type(plan.model).__name__,
        shape=(),
        params=params(spec),
        flops_per_token=forward_flops_per_token(spec, context=context),
        state_bytes=state_bytes(spec, rows=1, max_len=context, dtype=dtype),
        children=tuple(filter(_counts, inside)),
    )


def _stack(plan: Blueprint, path: str, stack: Stack, context: int, dtype: torch.dtype) -> Iterator[Node]:
    """The nodes of a stack's parts, in the order in which they run."""
    module = plan.model.get_submodule(path)
    node = partial(_node, rows=1 if isinstance(stack, Decoder) else 0, context=context, dtype=dtype)
    parts = {name: node(join(path, name), part) for name, part in module.named_children()}
    layers = module.get_submodule("layers")
    built = dict(zip(dict.fromkeys(stack.layer_kinds), layers.children(), strict=True))
    yield parts.pop("embed")
    del parts["layers"]
    first = 0
    for layer, run in itertools.groupby(stack.layer_kinds):
        count = len(list(run))
        name = str(first) if count == 1 else f"{first}-{first + count - 1}"
        yield node(join(path, name), built[layer], count=count)
        first += count
    yield from parts.values()


def _node(name: str, module: nn.Module, *, rows: int, context: int, dtype: torch.dtype, count: int = 1) -> Node:
    """The node of a module; ``rows`` of state are 0 in an encoder, which has none."""
    inside = [_node(child, part, rows=rows, context=context, dtype=dtype) for child, part in module.named_children()]
    weights: Mapping[str, nn.Parameter] = dict(module.named_parameters(recurse=False))
    return Node(
        name=name,
        kind=type(module).__name__,
        shape=tuple(weights["weight"].shape) if "weight" in weights else (),
        params=sum(parameter.numel() for parameter in module.parameters()),
        flops_per_token=_flops(module, context),
        state_bytes=_state_bytes(module, rows, context, dtype),
        count=count,
        children=tuple(node for node in inside if _counts(node)),
    )


def _counts(node: Node) -> bool:
    return bool(node.params or node.flops_per_token or node.state_bytes)


def _idle_params(module: nn.Module) -> int:
    return sum(part.idle_params for part in module.modules() if isinstance(part, ExpertLinear))


def _flops(module: nn.Module, context: int) -> float:
    return _row_flops(module, context, memory=context) / context


def _row_flops(module: nn.Module, tokens: int, *, memory: int = 0, back: bool = False) -> int:
    """The operations of a part's forward, or of its backward, for a row of so many tokens and a memory of so many."""
    parts = list(used(module))
    mixers = [(part, part.memory_maps()) for part in parts if isinstance(part, Mixer)]
    of_memory = {id(part) for _, maps in mixers for part in maps or ()}
    linear = (part for part in parts if isinstance(part, Counted))
    of_maps = sum(part.flops_per_token * (memory if id(part) in of_memory else tokens) for part in linear)
    of_mixes = 0
    for part, attended in mixers:
        count = part.mix_backward_flops if back else part.mix_flops
        of_mixes += count(tokens, tokens if attended is None else memory)
    return (BACKWARD_PER_FORWARD if back else 1) * of_maps + of_mixes


def _state_bytes(module: nn.Module, rows: int, max_len: int, dtype: torch.dtype) -> int:
    total = 0
    for mixer in (part for part in used(module) if isinstance(part, Mixer)):
        state = mixer.new_state(rows, max_len, device="meta", dtype=dtype)
        if not isinstance(state, State):
            kind, made = type(mixer).__name__, type(state).__name__
            raise SpecError(f"{kind}.new_state returns {made}; expected a groundup.State, empty for what keeps nothing")
        total += state.nbytes
    return total


def shared_heads(spec: Stack) -> int:
    """Returns the most devices that can share the matrices of every layer: a divisor of all their heads."""
    settings = (vars(part) for _, part in walk(spec))
    heads = [given[name] for given in settings for name in ("heads", "kv_heads") if given.get(name)]
    return math.gcd(*heads) if heads else 1
