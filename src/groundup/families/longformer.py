"""Longformer: BERT's layers with attention to a window and to a few global tokens, which have maps of their own.

Source: Beltagy et al. 2020 (arXiv:2004.05150), sections 3 and 5, which started from RoBERTa (Liu et al. 2019,
arXiv:1907.11692): its vocabulary, one token type, and two unused rows before the first learnt position. Which tokens
are global is data, `Context.central`; where nothing says it, each text's first token is, as in transformers'
classifier, while transformers' other classes have none then.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from groundup.errors import SpecError
from groundup.families import bert, roberta
from groundup.families.family import Family, Keys
from groundup.mixers.local_global import LocalGlobalAttention
from groundup.model.encoder import Encoder
from groundup.model.pool import FirstToken, NoPool
from groundup.rules import Rule, named

ARCHITECTURES = {"LongformerForMaskedLM": (True, NoPool()), "LongformerModel": (False, FirstToken())}


def longformer(*, windows: Sequence[int], **sizes: Any) -> Encoder:
    """Returns the spec of a Longformer of these sizes.

    Args:
        windows: of each layer, how many tokens around it a token sees, half of them on each side.
        sizes: the others, as those of `bert.bert`.

    Raises:
        SpecError: ``heads`` does not divide ``width``, or a window is no even number.
    """
    return windowed(roberta.roberta(layers=len(windows), **sizes), windows)


def windowed(spec: Encoder, windows: Sequence[int]) -> Encoder:
    """Returns the spec with attention to windows and global tokens in place of its own.

    Raises:
        SpecError: a window is no even number.
    """
    odd = next((window for window in windows if window % 2 or window < 2), None)
    if odd is not None:
        raise SpecError(f"a window of {odd} tokens has no two equal sides; choose an even number of at least 2")
    return bert.with_mixers(spec, [partial(LocalGlobalAttention, reach=window // 2) for window in windows])


PRESETS = {
    "longformer-base-4096": partial(longformer, width=768, heads=12, windows=(512,) * 12, context=4096),
    "longformer-large-4096": partial(longformer, width=1024, heads=16, windows=(512,) * 24, context=4096),
}


def read(keys: Keys) -> Encoder:
    """Returns the spec of a Longformer configuration."""
    keys.assume(vocab_size=30522)
    keys.only(ignore_attention_mask=False)
    keys.skip("onnx_export", "attention_mode")
    spec = roberta.read(keys, architectures=ARCHITECTURES)
    layers, windows = len(spec.layers), keys.take("attention_window", default=512)
    windows = [windows] * layers if isinstance(windows, int) else windows
    if not isinstance(windows, list) or len(windows) != layers or not all(isinstance(w, int) for w in windows):
        raise SpecError(f"the configuration's attention_window is {windows!r}; expected one number, or one a layer")
    return windowed(spec, windows)


def write(spec: Encoder) -> dict[str, Any] | None:
    """Returns the configuration of a Longformer spec."""
    mixers = [layer.parts["mix"].mixer for layer in spec.layers]
    windows = [2 * mixer.reach for mixer in mixers if isinstance(mixer, LocalGlobalAttention)]
    if len(windows) < len(mixers):
        return None
    return roberta.write(spec, architectures=ARCHITECTURES) | {"attention_window": windows}


def rules(spec: Encoder) -> list[Rule]:
    """Returns the weight rules: RoBERTa's, and those of the maps of global tokens."""
    theirs, ours = f"{bert.start(spec, 'longformer')}encoder.layer.{{l}}.attention.self", "layers.{l}.mix.mixer"
    maps = {"query_global": "global_q", "key_global": "global_k", "value_global": "global_v"}
    more = named({f"{theirs}.{a}": f"{ours}.{b}" for a, b in maps.items()})
    return [*roberta.rules(spec, root="longformer"), *more]


FAMILY = Family(
    name="longformer",
    model_types=("longformer",),
    presets=PRESETS,
    read=read,
    write=write,
    rules=rules,
    kind=Encoder,
    prefix="longformer.",
    ignored=bert.FAMILY.ignored,
    renamed=bert.FAMILY.renamed,
)
