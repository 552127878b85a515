"""Tensors without memory, and a meter of what would be done with them.

A `Phantom` has a shape, a type and a device, but no values: every operation on it runs on the meta device. Unlike a
meta tensor it claims the device that is planned for, so that autocast, the choice of attention kernels and autograd
do exactly what they will do there. A `Meter` makes phantoms, sees every operation on them, and keeps the books of a
real allocator: which storages are alive, and the most that ever were.

torch._subclasses.FakeTensorMode can do the former, but importing it takes 1.6 s (torch 2.13), more than all of a plan.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only, tree_unflatten
from torch.utils.flop_counter import flop_registry

from groundup.devices import kind_of
from groundup.inside import INSIDES, times

_META = torch.device("meta")


@dataclass(frozen=True, kw_only=True)
class Work:
    """One operation of a certain size; views of other tensors are all one `VIEW`.

    Attributes:
        name: the operation's name in ATen: ``mm``, ``silu_backward``.
        dtype: of its first floating-point input: ``bfloat16``.
        size: (m, k, n) of a product of matrices, (T, S) of attention, else empty.
        flops: of products of matrices and of attention; 0 for all else.
        elements: numbers that it makes.
        moved_bytes: what it reads and writes.
    """

    name: str
    dtype: str = ""
    size: tuple[int, ...] = ()
    flops: int = 0
    elements: int = 0
    moved_bytes: int = 0


VIEW = Work(name="view")

Event = tuple[int, int]  # a storage's number and its bytes where it is made, or `FREED`
FREED = -1
RECORDED: Event = (0, 0)  # an operation of which autograd keeps a node


class Phantom(Tensor):
    """A tensor that has all but values; made by a `Meter`."""

    bare: Tensor  # on the meta device
    __torch_function__ = torch._C._disabled_torch_function_impl  # pyrefly: ignore[bad-override] # the meter sees all

    @staticmethod
    def __new__(cls, bare: Tensor, device: torch.device) -> Phantom:
        """Returns a phantom of a meta tensor."""
        return Tensor._make_wrapper_subclass(
            cls,
            bare.size(),
            strides=bare.stride(),
            storage_offset=bare.storage_offset(),
            dtype=bare.dtype,
            device=device,
        )

    def __init__(self, bare: Tensor, device: torch.device) -> None:
        self.bare = bare

    def __repr__(self, *, tensor_contents: None = None) -> str:
        return f"Phantom({tuple(self.shape)}, dtype={self.dtype}, device={self.device})"

    @classmethod
    def __torch_dispatch__(  # pyrefly: ignore[bad-override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Refuses to run outside a meter."""
        raise AssertionError(f"{func} on a Phantom outside a Meter")


class Meter(TorchDispatchMode):
    """Makes every tensor created under it a phantom, and counts bytes and operations.

    Attributes:
        live_bytes: of storages that are alive.
        peak_bytes: the most that were alive since `mark`.
        copied_bytes: of storages that are alive and hold weights in another type, see `copies_of`.
        works: how many of each operation were run since `mark`.
        events: what came and went since `mark`, in order, see `Event`.
    """

    looking_inside = True  # whether operations of our own are seen as what they do (inside.py), or as one each

    def __init__(self, device: torch.device | str) -> None:
        super().__init__()
        self.device = torch.device(device)
        self.live_bytes = 0
        self.peak_bytes = 0
        self.copied_bytes = 0
        self.works: Counter[Work] = Counter()
        self.events: list[Event] = []
        self._alive: dict[int, int] = {}  # the number of each storage, by where it lies
        self._count = 0
        self._weights: set[int] = set()

    def copies_of(self, weights: Iterable[Tensor]) -> None:
        """Counts in ``copied_bytes`` the copies in another type that are made of these phantoms from now on."""
        self._weights = {t.bare.untyped_storage()._cdata for t in weights if isinstance(t, Phantom)}

    def mark(self) -> int:
        """Forgets the operations and the peak so far; returns the bytes alive now."""
        self.works, self.events = Counter(), []
        self.peak_bytes = self.live_bytes
        return self.live_bytes

    def number(self, tensor: Tensor) -> int:
        """Returns the number by which events call the storage of a phantom."""
        assert isinstance(tensor, Phantom)
        return self._alive[tensor.bare.untyped_storage()._cdata]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation on shapes alone and writes it into the books."""
        if torch.is_grad_enabled():
            self.events.append(RECORDED)
        if self.looking_inside and func in INSIDES:
            with self, torch.no_grad():
                out = INSIDES[func](*args, **(kwargs or {}))
            if out is not NotImplemented:
                return out
        leaves, shape = tree_flatten((args, kwargs or {}))
        bare = [_bared(leaf) for leaf in leaves]
        bare_args, bare_kwargs = tree_unflatten(bare, shape)
        out = func(*bare_args, **bare_kwargs)
        given = {id(leaf.bare): leaf for leaf in leaves if isinstance(leaf, Phantom)}

        def phantom(t: Tensor) -> Phantom:
            # An operation in place returns what it was given. A phantom says nothing of a conjugation or a sign that
            # waits for the next operation, so none does.
            return given[id(t)] if id(t) in given else Phantom(t.resolve_conj().resolve_neg(), self.device)

        made = [out] if isinstance(out, Tensor) else [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        self._book(func, (bare_args, bare_kwargs), [t for t in bare if isinstance(t, Tensor)], made)
        return phantom(out) if isinstance(out, Tensor) else tree_map_only(Tensor, phantom, out)

    def _book(self, func: Any, inputs: Any, read: list[Tensor], made: list[Tensor]) -> None:
        copies = func is torch.ops.aten._to_copy.default and read[0].untyped_storage()._cdata in self._weights
        casts = [self._begin(size) for size in _casts(func, read)]
        fresh = [t for t in made if self._adopt(t.untyped_storage(), copy=copies)]
        for number, size in casts:
            self._end(number, size)
        changed = _changed(func, *inputs)
        if not fresh and not changed:
            self.works[VIEW] += times()
            return
        written = fresh + changed
        flops, size = _flops(func.overloadpacket, inputs, made)
        first = next((t for t in read if t.is_floating_point()), written[0])
        work = Work(
            name=func.overloadpacket.__name__,
            dtype=str(first.dtype).removeprefix("torch."),
            size=size,
            flops=flops,
            elements=sum(t.numel() for t in written),
            moved_bytes=sum(map(_bytes, read + written)) + 2 * sum(size for _, size in casts),
        )
        self.works[work] += times()

    def _adopt(self, storage: torch.UntypedStorage, *, copy: bool) -> bool:
        """Returns whether a storage is new; if so, it counts as alive until nothing refers to it."""
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return False
        self._alive[key], _ = self._begin(size)
        self.copied_bytes += size if copy else 0
        weakref.finalize(storage, self._bury, key, size, copy=copy)
        return True

    def _bury(self, key: int, size: int, *, copy: bool) -> None:
        self._end(self._alive.pop(key), size)
        self.copied_bytes -= size if copy else 0

    def _begin(self, size: int) -> Event:
        self._count += 1
        self.events.append((self._count, size))
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        return self._count, size

    def _end(self, number: int, size: int) -> None:
        self.events.append((number, FREED))
        self.live_bytes -= size


def _bared(leaf: Any) -> Any:
    """What an operation on shapes takes in the place of an argument."""
    if isinstance(leaf, Phantom):
        return leaf.bare
    if isinstance(leaf, torch.device):
        return _META
    return torch.empty_like(leaf, device=_META) if isinstance(leaf, Tensor) else leaf


def _bytes(t: Tensor) -> int:
    """The distinct bytes of a tensor: what is repeated by a stride of zero is read once."""
    size = t.element_size()
    for length, stride in zip(t.shape, t.stride(), strict=True):
        size *= length if stride else 1
    return size


def _changed(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The inputs that an operation writes to."""
    if not func._schema.is_mutable:
        return []
    named = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
    outs = {a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write}
    return [t for name in outs for t in tree_leaves(named.get(name)) if isinstance(t, Tensor)]


def _casts(func: Any, read: list[Tensor]) -> list[int]:
    """The bytes of the copies that a processor makes, for a moment, of numbers of several types in a common one."""
    if torch.Tag.pointwise not in func.tags or func.overloadpacket in _UNLIKE or len(read) < 2:
        return []
    several = [t for t in read if t.ndim]
    if len({t.dtype for t in several}) < 2 or kind_of(several[0]) not in ("cpu", "meta"):
        return []
    common = reduce(torch.promote_types, (t.dtype for t in several))
    return [t.numel() * common.itemsize for t in several if t.dtype != common]


_UNLIKE = {torch.ops.aten.where, torch.ops.aten.masked_fill, torch.ops.aten.masked_fill_}  # whose mask stays as it is


def _flops(packet: Any, inputs: Any, made: list[Tensor]) -> tuple[int, tuple[int, ...]]:
    """The operations of products and attention, and their size; conventions as in books.py."""
    args, kwargs = inputs
    if packet in _CPU_ATTENTION:  # not in PyTorch's registry (torch 2.13)
        q, k, v = (t for t in args[_CPU_ATTENTION[packet] - 1 :][:3])
        rows, heads, tokens, width = q.shape
        forward = 2 * rows * heads * tokens * k.shape[2] * (width + v.shape[3])
        return _CPU_ATTENTION[packet] * forward, (tokens, k.shape[2])
    if packet not in flop_registry:
        return 0, ()
    flops = flop_registry[packet](*args, **kwargs, out_val=made[0] if len(made) == 1 else tuple(made))
    if "attention" in packet.__name__:
        return flops, (args[0].shape[2], args[1].shape[2])
    out = made[0]
    inner = flops // max(1, 2 * out.numel())  # of sums for each of many experts, less than a row
    return flops, (out.shape[-2], max(1, inner), out.shape[-1])


# A forward costs itself once; the backward takes the gradient first, then the same three, and costs two forwards.
_CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: 1,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: 2,
}
