"""Which layers see a window and which see all, as configurations say it: sliding_window and layer_types."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from groundup.errors import SpecError
from groundup.families.family import Keys
from groundup.mixers.attention import Attention
from groundup.model.decoder import Decoder
from groundup.model.layer import LayerSpec
from groundup.model.residual import Residual
from groundup.parts.mask import Window
from groundup.specs import override_all

LOCAL, FAR = "sliding_attention", "full_attention"


def on_layers(spec: Decoder, layers: Iterable[int], **changes: Any) -> Decoder:
    """Returns the spec with fields of the attention changed on some of its layers."""
    chosen = set(layers)
    changed = override_all(spec, {f"layers.*.mix.mixer.{name}": value for name, value in changes.items()})
    both = enumerate(zip(spec.layers, changed.layers, strict=True))
    return spec.replace(layers=tuple(new if i in chosen else old for i, (old, new) in both))


def read_windows(
    keys: Keys, spec: Decoder, *, window: int | None, usual: Callable[[int], bool], **changes: Any
) -> Decoder:
    """Returns the spec with the windows of a configuration.

    Args:
        keys: the configuration.
        spec: the model, all its layers alike.
        window: how many tokens a token sees in the local layers.
        usual: whether a layer is local where the configuration has no ``layer_types``.
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
    return on_layers(spec, local, mask=Window(window), **changes)


def write_window(spec: Decoder) -> dict[str, Any]:
    """Returns the window of the first layer that has one, as ``sliding_window``; None where all see all."""
    return {"sliding_window": next(filter(None, map(_window, spec.layers)), None)}


def write_kinds(spec: Decoder) -> dict[str, Any]:
    """Returns ``layer_types``."""
    return {"layer_types": [LOCAL if _window(layer) else FAR for layer in spec.layers]}


def _window(layer: LayerSpec) -> int | None:
    match layer.mix:
        case Residual(mixer=Attention(mask=Window(size=size))):
            return size
    return None
