"""BERT and the MiniLM encoders: post-norm layers, learnt positions, token types, a head that fills in masked tokens.

Sources: Devlin et al. 2019 (arXiv:1810.04805), section 3; Wang et al. 2020 (MiniLM, arXiv:2002.10957), section 4.
``architectures`` says which heads a file of weights holds: BertForMaskedLM fills in tokens, BertModel has none but a
pooler, BertForPreTraining has both and says whether one text follows another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from groundup.errors import SpecError
from groundup.families.family import ACTS, THEIR_ACTS, Family, Keys, head_width
from groundup.mixers.attention import Attention
from groundup.mixers.base import MixerSpec
from groundup.mixers.mlp import MLP
from groundup.model.encoder import Encoder
from groundup.model.heads import Dense, Head, NoHead, Tied
from groundup.model.layer import Layer
from groundup.model.pool import FirstToken, NoPool, Pool
from groundup.model.residual import Residual
from groundup.parts.embed import Embed
from groundup.parts.init import ScaledNormal
from groundup.parts.mask import Everything
from groundup.parts.norm import LayerNorm, NoNorm
from groundup.parts.position import Learned, NoPosition
from groundup.rules import Rule, rule

ARCHITECTURES = {
    "BertForMaskedLM": (True, NoPool()),
    "BertModel": (False, FirstToken()),
    "BertForPreTraining": (True, FirstToken(classes=2)),
}


def bert(
    *,
    width: int,
    layers: int,
    heads: int,
    hidden: int | None = None,
    vocab: int = 30522,
    context: int = 512,
    types: int = 2,
    act: str = "gelu",
    eps: float = 1e-12,
    filling: bool = True,
    pool: Pool = NoPool(),  # noqa: B008 - a spec is a value
    deviation: float = 0.02,
    dropout: tuple[float, float] = (0.0, 0.0),
) -> Encoder:
    """Returns the spec of a BERT of these sizes.

    Args:
        width: the width of the residual stream.
        layers: the number of layers.
        heads: attention heads, each ``width / heads`` wide.
        hidden: the width inside the feed-forward part; None means four times ``width``.
        vocab: the number of token ids.
        context: the number of learnt positions.
        types: the number of token types.
        act: the activation.
        eps: of the norms.
        filling: whether it has the head that fills in masked tokens.
        pool: what makes one vector of a text.
        deviation: of the first weights.
        dropout: of what goes into the stream, and of attention weights.

    Raises:
        SpecError: ``heads`` does not divide ``width``.
    """
    of_stream, of_attention = dropout
    attention = Attention(
        heads=heads,
        kv_heads=heads,
        head_width=head_width(width, heads),
        mask=Everything(),
        position=NoPosition(),
        bias=True,
        out_bias=True,
        dropout=of_attention,
    )
    return post_norm(
        (attention,) * layers,
        width=width,
        hidden=hidden or 4 * width,
        vocab=vocab,
        position=Learned(context),
        types=types,
        act=act,
        eps=eps,
        filling=filling,
        pool=pool,
        deviation=deviation,
        dropout=of_stream,
    )


def post_norm(
    mixers: Sequence[MixerSpec],
    *,
    width: int,
    hidden: int,
    vocab: int,
    position: Learned,
    types: int,
    act: str,
    eps: float,
    filling: bool,
    pool: Pool,
    deviation: float,
    dropout: float,
    width_power: float = 0.0,
    filling_act: str | None = None,
) -> Encoder:
    """Returns the spec of an encoder with BERT's layers, embedding and heads around any mixers, one a layer.

    Args:
        mixers: the mixers.
        position: the learnt positions.
        dropout: of what goes into the stream.
        width_power: the table's vectors are multiplied by the width to this power.
        filling_act: the activation of the head that fills in masked tokens; None means that of the layers.
        width: as that of `bert`, and so are the others.
        hidden: the width inside the feed-forward part.
        vocab: the number of token ids.
        types: the number of token types.
        act: the activation.
        eps: of the norms.
        filling: whether it has the head that fills in masked tokens.
        pool: what makes one vector of a text.
        deviation: of the first weights.
    """
    norm = LayerNorm(eps=eps)
    mlp = MLP(hidden=hidden, act=act, bias=True)
    part = partial(Residual, pre=NoNorm(), out=norm, dropout=dropout)
    return Encoder(
        width=width,
        vocab=vocab,
        context=position.length,
        layers=tuple(Layer(mix=part(mixer), ffn=part(mlp)) for mixer in mixers),
        embed=Embed(position=position, types=types, norm=norm, dropout=dropout, width_power=width_power),
        norm=NoNorm(),
        head=Tied(transform=Dense(act=filling_act or act, norm=norm), bias=True) if filling else NoHead(),
        pool=pool,
        init=ScaledNormal(deviation=deviation),
    )


PRESETS = {
    "bert-tiny": partial(bert, width=128, layers=2, heads=2),
    "bert-mini": partial(bert, width=256, layers=4, heads=4),
    "bert-small": partial(bert, width=512, layers=4, heads=8),
    "bert-medium": partial(bert, width=512, layers=8, heads=8),
    "bert-base": partial(bert, width=768, layers=12, heads=12),
    "bert-large": partial(bert, width=1024, layers=24, heads=16),
    "minilm-l6": partial(bert, width=384, layers=6, heads=12, filling=False, pool=FirstToken()),
    "minilm-l12": partial(bert, width=384, layers=12, heads=12, filling=False, pool=FirstToken()),
}


def read(keys: Keys) -> Encoder:
    """Returns the spec of a BERT configuration."""
    keys.only("position_embedding_type", "absolute")
    of_attention = keys.number("attention_probs_dropout_prob", default=0.1, whole=False)
    settings = common(keys, ARCHITECTURES)
    return bert(
        layers=keys.layers("num_hidden_layers", default=12),
        heads=keys.number("num_attention_heads", default=12),
        context=keys.number("max_position_embeddings", default=512),
        **settings | {"dropout": (settings["dropout"], of_attention)},
    )


def common(
    keys: Keys, architectures: Mapping[str, tuple[bool, Pool]], *, vocab: int = 30522, act: str = "gelu"
) -> dict[str, Any]:
    """Returns what a configuration of BERT's kin says besides its attention and its places, as `post_norm` takes it.

    Args:
        keys: of the configuration.
        architectures: the classes that are known: whether they fill in tokens, and their pool. The first is assumed.
        vocab: the number of token ids where it says none.
        act: the activation where it says none.

    Raises:
        SpecError: it names another class.
    """
    keys.only("add_cross_attention", False)
    keys.only("tie_word_embeddings", True)
    keys.take("classifier_dropout", default=None)
    named = keys.config.get("architectures") or list(architectures)
    if named[0] not in architectures:
        known = ", ".join(architectures)
        raise SpecError(f"the {keys.family} architecture {named[0]} is not known; known are {known}")
    filling, pool = architectures[named[0]]
    return {
        "width": keys.number("hidden_size", default=768),
        "hidden": keys.number("intermediate_size", default=3072),
        "vocab": keys.number("vocab_size", default=vocab),
        "types": keys.number("type_vocab_size", default=2),
        "act": keys.choice("hidden_act", known=ACTS, default=act),
        "eps": keys.number("layer_norm_eps", default=1e-12, whole=False),
        "filling": filling,
        "pool": pool,
        "deviation": keys.number("initializer_range", default=0.02, whole=False),
        "dropout": keys.number("hidden_dropout_prob", default=0.1, whole=False),
    }


def architecture(head: Head, pool: Pool, architectures: Mapping[str, tuple[bool, Pool]]) -> str:
    """Returns the name of transformers' class with these heads.

    Raises:
        SpecError: there is none.
    """
    has = (head != NoHead(), pool)
    found = next((name for name, heads in architectures.items() if heads == has), None)
    if found is None:
        raise SpecError(f"transformers has no class with these heads among {', '.join(architectures)}")
    return found


def write(spec: Encoder) -> dict[str, Any]:
    """Returns the configuration of a BERT spec.

    Raises:
        SpecError: the spec is of other parts.
    """
    match spec:
        case Encoder(layers=(Layer(mix=Residual(mixer=Attention() as attention)), *_)):
            return said(spec, ARCHITECTURES) | {
                "max_position_embeddings": spec.context,
                "num_attention_heads": attention.heads,
                "attention_probs_dropout_prob": attention.dropout,
            }
    raise SpecError("no BERT of transformers is made of these parts; see groundup.families.bert for those it has")


def said(spec: Encoder, architectures: Mapping[str, tuple[bool, Pool]]) -> dict[str, Any]:
    """Returns what a configuration of BERT's kin says besides its attention and its places: the inverse of `common`.

    Raises:
        SpecError: the spec is of other parts.
    """
    match spec:
        case Encoder(
            layers=(Layer(mix=Residual(out=LayerNorm(eps=eps)), ffn=Residual(mixer=MLP() as mlp)), *_),
            init=ScaledNormal(deviation=deviation),
        ) if mlp.act in THEIR_ACTS:
            return {
                "architectures": [architecture(spec.head, spec.pool, architectures)],
                "vocab_size": spec.vocab,
                "type_vocab_size": spec.embed.types,
                "hidden_size": spec.width,
                "num_hidden_layers": len(spec.layers),
                "intermediate_size": mlp.hidden,
                "hidden_act": THEIR_ACTS[mlp.act],
                "layer_norm_eps": eps,
                "initializer_range": deviation,
                "hidden_dropout_prob": spec.embed.dropout,
            }
    raise SpecError("no class of transformers is made of these parts; see groundup.families.bert for those of BERT")


def rules(spec: Encoder) -> list[Rule]:
    """Returns the weight rules: names only, for theirs and ours are laid out alike."""
    start = "" if spec.head == NoHead() else "bert."
    return [*stack_rules(start), *filling_rules(), *named(f"{start}pooler.dense", "pool.dense")]


def stack_rules(start: str) -> list[Rule]:
    """Returns the weight rules of the embedding and the layers, whose names begin with ``start``."""
    theirs, ours, tables = f"{start}encoder.layer.{{l}}", "layers.{l}", f"{start}embeddings"
    pairs = [
        (f"{tables}.LayerNorm", "embed.norm"),
        (f"{theirs}.attention.self.query", f"{ours}.mix.mixer.q"),
        (f"{theirs}.attention.self.key", f"{ours}.mix.mixer.k"),
        (f"{theirs}.attention.self.value", f"{ours}.mix.mixer.v"),
        (f"{theirs}.attention.output.dense", f"{ours}.mix.mixer.out"),
        (f"{theirs}.attention.output.LayerNorm", f"{ours}.mix.out"),
        (f"{theirs}.intermediate.dense", f"{ours}.ffn.mixer.up"),
        (f"{theirs}.output.dense", f"{ours}.ffn.mixer.down"),
        (f"{theirs}.output.LayerNorm", f"{ours}.ffn.out"),
    ]
    return [
        rule(f"{tables}.word_embeddings.weight", "embed.weight"),
        rule(f"{tables}.position_embeddings.weight", "embed.position.weight"),
        rule(f"{tables}.token_type_embeddings.weight", "embed.types.weight"),
        *(made for pair in pairs for made in named(*pair)),
    ]


def filling_rules() -> list[Rule]:
    """Returns the weight rules of the heads of BERT's pre-training."""
    filled = "cls.predictions"
    return [
        *named(f"{filled}.transform.dense", "transform.dense"),
        *named(f"{filled}.transform.LayerNorm", "transform.norm"),
        rule(f"{filled}.bias", "head.bias"),
        rule(f"{filled}.decoder.weight", "head.weight"),
        *named("cls.seq_relationship", "pool.classes"),
    ]


def named(theirs: str, ours: str) -> list[Rule]:
    """Returns the rules of a module's weight and bias."""
    return [rule(f"{theirs}.{end}", f"{ours}.{end}") for end in ("weight", "bias")]


FAMILY = Family(
    name="bert",
    model_types=("bert",),
    presets=PRESETS,
    read=read,
    write=write,
    rules=rules,
    kind=Encoder,
    prefix="bert.",
    ignored=re.compile(r"(bert\.)?embeddings\.position_ids|cls\.predictions\.decoder\.bias"),
)
