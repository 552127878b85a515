"""Which layers see a window and which see all, and how each kind turns, as configurations say it.

sliding_window and layer_types say which; rope_parameters, or a theta of each kind, say how.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from groundup.errors import SpecError
from groundup.families.family import Keys
from groundup.families.llama import read_rope, write_rope
from groundup.mixers.attention import Attention
from groundup.model.layer import LayerSpec
from groundup.model.residual import Residual
from groundup.model.stack import Stack
from groundup.parts.mask import Mask, Near, Window
from groundup.parts.position import RoPE
from groundup.specs import override_all

AnyStack = TypeVar("AnyStack", bound=Stack)

LOCAL, FAR = "sliding_attention", "full_attention"


def on_layers(spec: AnyStack, layers: Iterable[int], **changes: Any) -> AnyStack:
    """Returns the spec with fields of the attention changed on some of its layers."""
    chosen = set(layers)
    changed = override_all(spec, {f"layers.*.mix.mixer.{name}": value for name, value in changes.items()})
    both = enumerate(zip(spec.layers, changed.layers, strict=True))
    return spec.replace(layers=tuple(new if i in chosen else old for i, (old, new) in both))


def read_windows(
    keys: Keys,
    spec: AnyStack,
    *,
    window: int | None,
    usual: Callable[[int], bool],
    mask: Callable[[int], Mask] = Window,
    **changes: Any,
) -> AnyStack:
    """Returns the spec with the windows of a configuration.

    Args:
        keys: the configuration.
        spec: the model, all its layers alike.
        window: how many tokens a token sees in the local layers.
        usual: whether a layer is local where the configuration has no ``layer_types``.
        mask: that of a window.
        changes: what else differs in the attention of the local layers.

    Raises:
        SpecError: ``layer_types`` has another length or other words, or a layer is local and there is no window.
    """
    count = len(spec.layers)
    kinds = keys.take("layer_types", default=[LOCAL if usual(i) else FAR for i in range(count)])
    if not isinstance(kinds, list) or len(kinds) != count or any(kind not in (LOCAL, FAR) for kind in kinds):
        raise SpecError(f"the configuration's layer_types are {kinds!r}; expected {count} of {LOCAL} and {FAR}")
    local = [i for i, kind in enumerate(kinds) if kind == LOCAL]
    if not local:
        return spec
    if window is None:
        raise SpecError(f"the configuration has {LOCAL} layers and no window for them; give a sliding_window")
    return on_layers(spec, local, mask=mask(window), **changes)


def write_window(spec: Stack) -> dict[str, Any]:
    """Returns the window of the first layer that has one, as ``sliding_window``; None where all see all."""
    return {"sliding_window": next(filter(None, map(_window, spec.layers)), None)}


def write_kinds(spec: Stack) -> dict[str, Any]:
    """Returns ``layer_types``."""
    return {"layer_types": [LOCAL if _window(layer) else FAR for layer in spec.layers]}


def _window(layer: LayerSpec) -> int | None:
    match layer.mix:
        case Residual(mixer=Attention(mask=Window(size=size) | Near(reach=size))):
            return size
    return None


def read_ropes(keys: Keys, *, context: int, near: tuple[str, float], far: tuple[str, float]) -> tuple[RoPE, RoPE]:
    """Returns the rotations of local layers and of those that see all, in the words of transformers 4 or 5.

    Args:
        keys: the configuration.
        context: its longest sequence.
        near: the key of the local layers' theta in transformers 4, and what it is where nothing says.
        far: those of the layers that see all, whose rotation alone may be scaled.
    """
    given = keys.take("rope_parameters", default={})
    if not isinstance(given, Mapping) or not given.keys() <= {LOCAL, FAR}:
        raise SpecError(f"the configuration's rope_parameters are {given!r}; expected a mapping of {LOCAL} and {FAR}")
    said = {
        LOCAL: {"rope_theta": keys.take(near[0], default=None)},
        FAR: {"rope_theta": keys.take(far[0], default=None), "rope_scaling": keys.take("rope_scaling", default=None)},
    }
    kind = {name: value for name, value in keys.config.items() if name == "model_type"}
    of_each = {x: Keys({"rope_parameters": given.get(x), **said[x], **kind}, family=keys.family) for x in said}
    return (
        read_rope(of_each[LOCAL], context=context, theta=near[1]),
        read_rope(of_each[FAR], context=context, theta=far[1]),
    )


def write_ropes(spec: Stack, *, near: float, far: float) -> dict[str, Any]:
    """Returns ``rope_parameters``; a kind of layers that is not there has the given theta."""
    ropes = {LOCAL: RoPE(theta=near), FAR: RoPE(theta=far)}
    for layer in reversed(spec.layers):
        match layer.mix:
            case Residual(mixer=Attention(position=RoPE() as position)):
                ropes[LOCAL if _window(layer) else FAR] = position
    return {"rope_parameters": {kind: write_rope(position) for kind, position in ropes.items()}}
