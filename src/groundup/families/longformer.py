"""Longformer: BERT's layers with attention to a window and to a few global tokens, which have maps of their own.

Source: Beltagy et al. 2020 (arXiv:2004.05150), sections 3 and 5, which started from RoBERTa (Liu et al. 2019,
arXiv:1907.11692): its vocabulary, one token type, and two unused rows before the first learnt position. Which tokens
are global is data, `Context.central`; where nothing says it, each text's first token is, as in transformers'
classifier, while transformers' other classes have none then.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from groundup.errors import SpecError
from groundup.families import bert
from groundup.families.family import Family, Keys, head_width
from groundup.mixers.local_global import LocalGlobalAttention
from groundup.model.encoder import Encoder
from groundup.model.heads import NoHead
from groundup.model.layer import Layer
from groundup.model.pool import FirstToken, NoPool, Pool
from groundup.model.residual import Residual
from groundup.parts.embed import Embed
from groundup.parts.position import Learned
from groundup.rules import Rule, rule

ARCHITECTURES = {"LongformerForMaskedLM": (True, NoPool()), "LongformerModel": (False, FirstToken())}


def longformer(
    *,
    width: int,
    heads: int,
    windows: Sequence[int],
    hidden: int | None = None,
    vocab: int = 50265,
    positions: int = 4098,
    padding: int = 1,
    types: int = 1,
    act: str = "gelu",
    eps: float = 1e-5,
    filling: bool = True,
    pool: Pool = NoPool(),  # noqa: B008 - a spec is a value
    deviation: float = 0.02,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
) -> Encoder:
    """Returns the spec of a Longformer of these sizes.

    Args:
        width: the width of the residual stream.
        heads: attention heads, each ``width / heads`` wide.
        windows: of each layer, how many tokens around it a token sees, half of them on each side.
        hidden: the width inside the feed-forward part; None means four times ``width``.
        vocab: the number of token ids.
        positions: rows of the table of positions, unused ones too.
        padding: the id of padding, whose position and those before it are unused.
        types: the number of token types.
        act: the activation.
        eps: of the norms.
        filling: whether it has the head that fills in masked tokens.
        pool: what makes one vector of a text.
        deviation: of the first weights.
        dropout: of what goes into the stream.
        attention_dropout: of attention weights.

    Raises:
        SpecError: ``heads`` does not divide ``width``, a window is no even number, or no position is used.
    """
    odd = next((window for window in windows if window % 2 or window < 2), None)
    if odd is not None:
        raise SpecError(f"a window of {odd} tokens has no two equal sides; choose an even number of at least 2")
    if positions <= padding + 1:
        raise SpecError(f"{positions} positions leave none after the {padding + 1} that are unused; choose more")
    attention = partial(
        LocalGlobalAttention,
        heads=heads,
        head_width=head_width(width, heads),
        bias=True,
        out_bias=True,
        dropout=attention_dropout,
    )
    return bert.post_norm(
        [attention(reach=window // 2) for window in windows],
        width=width,
        hidden=hidden or 4 * width,
        vocab=vocab,
        position=Learned(positions - padding - 1, offset=padding + 1),
        types=types,
        act=act,
        eps=eps,
        filling=filling,
        pool=pool,
        deviation=deviation,
        dropout=dropout,
        filling_act="gelu",
    )


PRESETS = {
    "longformer-base-4096": partial(longformer, width=768, heads=12, windows=(512,) * 12),
    "longformer-large-4096": partial(longformer, width=1024, heads=16, windows=(512,) * 24),
}


def read(keys: Keys) -> Encoder:
    """Returns the spec of a Longformer configuration."""
    keys.only("ignore_attention_mask", False)
    for says_nothing in ("onnx_export", "attention_mode"):
        keys.take(says_nothing, default=None)
    padding = keys.take("pad_token_id", default=1)
    if not isinstance(padding, int):
        raise SpecError(f"the configuration's pad_token_id is {padding!r}; expected a whole number")
    layers = keys.layers("num_hidden_layers", default=12)
    windows = keys.take("attention_window", default=512)
    windows = [windows] * layers if isinstance(windows, int) else windows
    if not isinstance(windows, list) or len(windows) != layers or not all(isinstance(w, int) for w in windows):
        raise SpecError(f"the configuration's attention_window is {windows!r}; expected one number, or one a layer")
    return longformer(
        heads=keys.number("num_attention_heads", default=12),
        windows=windows,
        positions=keys.number("max_position_embeddings", default=512),
        padding=padding,
        attention_dropout=keys.number("attention_probs_dropout_prob", default=0.1, whole=False),
        **bert.common(keys, ARCHITECTURES),
    )


def write(spec: Encoder) -> dict[str, Any]:
    """Returns the configuration of a Longformer spec.

    Raises:
        SpecError: the spec is of other parts.
    """
    match spec:
        case Encoder(
            layers=(Layer(mix=Residual(mixer=LocalGlobalAttention() as attention)), *_),
            embed=Embed(position=Learned() as position),
        ):
            mixers: list[Any] = [layer.parts["mix"].mixer for layer in spec.layers]
            return bert.said(spec, ARCHITECTURES) | {
                "max_position_embeddings": position.offset + position.length,
                "pad_token_id": position.offset - 1,
                "num_attention_heads": attention.heads,
                "attention_window": [2 * mixer.reach for mixer in mixers],
                "attention_probs_dropout_prob": attention.dropout,
            }
    raise SpecError("no Longformer of transformers is made of these parts; see groundup.families.longformer")


def rules(spec: Encoder) -> list[Rule]:
    """Returns the weight rules: names only, for theirs and ours are laid out alike."""
    start = "" if spec.head == NoHead() else "longformer."
    theirs, ours = f"{start}encoder.layer.{{l}}.attention.self", "layers.{l}.mix.mixer"
    maps = (("query_global", "global_q"), ("key_global", "global_k"), ("value_global", "global_v"))
    return [
        *bert.stack_rules(start),
        *(made for a, b in maps for made in bert.named(f"{theirs}.{a}", f"{ours}.{b}")),
        *bert.named("lm_head.dense", "transform.dense"),
        *bert.named("lm_head.layer_norm", "transform.norm"),
        rule("lm_head.bias", "head.bias"),
        rule("lm_head.decoder.weight", "head.weight"),
        *bert.named(f"{start}pooler.dense", "pool.dense"),
    ]


FAMILY = Family(
    name="longformer",
    model_types=("longformer",),
    presets=PRESETS,
    read=read,
    write=write,
    rules=rules,
    kind=Encoder,
    prefix="longformer.",
    ignored=re.compile(r"(longformer\.)?embeddings\.position_ids|lm_head\.decoder\.bias"),
)
