"""BERT and the MiniLM encoders: post-norm layers, learnt positions, token types, a head that fills in masked tokens.

Sources: Devlin et al. 2019 (arXiv:1810.04805), section 3; Wang et al. 2020 (MiniLM, arXiv:2002.10957), section 4.
``architectures`` says which heads a file of weights holds: BertForMaskedLM fills in tokens, BertModel has none but a
pooler, BertForPreTraining has both and says whether one text follows another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from groundup.errors import SpecError
from groundup.families.family import ACTS, THEIR_ACTS, Family, Keys, attention_of, head_width
from groundup.mixers.attention import Attention
from groundup.mixers.base import MixerSpec
from groundup.mixers.mlp import MLP
from groundup.model.encoder import Encoder
from groundup.model.heads import Dense, NoHead, Tied
from groundup.model.layer import Layer
from groundup.model.pool import FirstToken, NoPool, Pool
from groundup.model.residual import Residual
from groundup.parts.embed import Embed
from groundup.parts.init import ScaledNormal
from groundup.parts.mask import Everything
from groundup.parts.norm import LayerNorm, NoNorm
from groundup.parts.position import Learned, NoPosition
from groundup.rules import Rule, named, rule
from groundup.specs import override_all

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
    offset: int = 0,
    types: int = 2,
    act: str = "gelu",
    eps: float = 1e-12,
    filling: bool = True,
    pool: Pool = NoPool(),  # noqa: B008 - a spec is a value
    deviation: float = 0.02,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
) -> Encoder:
    """Returns the spec of a BERT of these sizes.

    Args:
        width: the width of the residual stream.
        layers: the number of layers.
        heads: attention heads, each ``width / heads`` wide.
        hidden: the width inside the feed-forward part; None means four times ``width``.
        vocab: the number of token ids.
        context: the number of learnt positions.
        offset: unused rows of their table before the first.
        types: the number of token types.
        act: the activation.
        eps: of the norms.
        filling: whether it has the head that fills in masked tokens.
        pool: what makes one vector of a text.
        deviation: of the first weights.
        dropout: of what goes into the stream.
        attention_dropout: of attention weights.

    Raises:
        SpecError: ``heads`` does not divide ``width``.
    """
    norm = LayerNorm(eps=eps)
    attention = Attention(
        heads=heads,
        kv_heads=heads,
        head_width=head_width(width, heads),
        mask=Everything(),
        position=NoPosition(),
        bias=True,
        out_bias=True,
        dropout=attention_dropout,
    )
    mlp = MLP(hidden=hidden or 4 * width, act=act, bias=True)
    part = partial(Residual, pre=NoNorm(), out=norm, dropout=dropout)
    return Encoder(
        width=width,
        vocab=vocab,
        context=context,
        layers=(Layer(mix=part(attention), ffn=part(mlp)),) * layers,
        embed=Embed(position=Learned(context, offset=offset), types=types, norm=norm, dropout=dropout),
        norm=NoNorm(),
        head=Tied(transform=Dense(act=act, norm=norm), bias=True) if filling else NoHead(),
        pool=pool,
        init=ScaledNormal(deviation=deviation),
    )


def with_mixers(spec: Encoder, mixers: Sequence[Callable[..., MixerSpec]]) -> Encoder:
    """Returns the spec with other mixers, one a layer, which get the heads, biases and dropout of its attention."""
    names = ("heads", "head_width", "bias", "out_bias", "dropout")
    same = {name: getattr(attention_of(spec), name) for name in names}
    return override_all(spec, {f"layers.{i}.mix.mixer": mixer(**same) for i, mixer in enumerate(mixers)})


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


def read(keys: Keys, *, architectures: Mapping[str, tuple[bool, Pool]] = ARCHITECTURES, offset: int = 0) -> Encoder:
    """Returns the spec of a BERT configuration.

    Args:
        keys: the configuration.
        architectures: the heads by the names of transformers' classes, the usual one first.
        offset: unused rows of the table of positions, which the configuration counts.
    """
    keys.only(position_embedding_type="absolute", add_cross_attention=False, is_decoder=False)
    keys.skip("classifier_dropout")
    filling, pool = architectures[keys.architecture(architectures)]
    keys.among("tie_word_embeddings", True, *([] if filling else [False]))  # without a head there is nothing to tie
    rows = keys.number("max_position_embeddings", default=512)
    if rows <= offset:
        raise SpecError(f"the configuration's max_position_embeddings is {rows}; expected more than {offset}")
    return bert(
        width=keys.number("hidden_size", default=768),
        layers=keys.layers("num_hidden_layers", default=12),
        heads=keys.number("num_attention_heads", default=12),
        hidden=keys.number("intermediate_size", default=3072),
        vocab=keys.number("vocab_size", default=30522),
        context=rows - offset,
        offset=offset,
        types=keys.number("type_vocab_size", default=2),
        act=keys.choice("hidden_act", known=ACTS, default="gelu"),
        eps=keys.number("layer_norm_eps", default=1e-12, whole=False),
        filling=filling,
        pool=pool,
        deviation=keys.number("initializer_range", default=0.02, whole=False),
        dropout=keys.number("hidden_dropout_prob", default=0.1, whole=False),
        attention_dropout=keys.number("attention_probs_dropout_prob", default=0.1, whole=False),
    )


def architecture(spec: Encoder, architectures: Mapping[str, tuple[bool, Pool]]) -> str:
    """Returns the name of transformers' class with the heads of a spec.

    Raises:
        SpecError: there is none.
    """
    has = (spec.head != NoHead(), spec.pool)
    found = next((name for name, heads in architectures.items() if heads == has), None)
    if found is None:
        raise SpecError(f"transformers has no class with these heads among {', '.join(architectures)}")
    return found


def write(spec: Encoder, *, architectures: Mapping[str, tuple[bool, Pool]] = ARCHITECTURES) -> dict[str, Any]:
    """Returns the configuration of a spec with BERT's layers around any mixers that have heads and dropout.

    Args:
        spec: the model.
        architectures: the heads by the names of transformers' classes.

    Raises:
        SpecError: the spec is of other parts.
    """
    match spec:
        case Encoder(
            layers=(
                Layer(
                    # pyrefly: ignore[missing-attribute]: a mixer without them is none of these parts
                    mix=Residual(mixer=object(heads=heads, dropout=attention_dropout), out=LayerNorm(eps=eps)),
                    ffn=Residual(mixer=MLP() as mlp),
                ),
                *_,
            ),
            embed=Embed(position=Learned(offset=offset)),
            init=ScaledNormal(deviation=deviation),
        ) if mlp.act in THEIR_ACTS:
            return {
                "architectures": [architecture(spec, architectures)],
                "vocab_size": spec.vocab,
                "max_position_embeddings": offset + spec.context,
                "type_vocab_size": spec.embed.types,
                "hidden_size": spec.width,
                "num_hidden_layers": len(spec.layers),
                "num_attention_heads": heads,
                "intermediate_size": mlp.hidden,
                "hidden_act": THEIR_ACTS[mlp.act],
                "layer_norm_eps": eps,
                "initializer_range": deviation,
                "hidden_dropout_prob": spec.embed.dropout,
                "attention_probs_dropout_prob": attention_dropout,
            }
    raise SpecError("no BERT of transformers is made of these parts; see groundup.families.bert for those it has")


# Their names of the modules of the head that fills in tokens.
HEAD = {
    "dense": "cls.predictions.transform.dense",
    "norm": "cls.predictions.transform.LayerNorm",
    "logits": "cls.predictions",
}


def start(spec: Encoder, root: str) -> str:
    """Returns what their names of the stack begin with, which is nothing where the file holds no head."""
    return "" if spec.head == NoHead() else f"{root}."


def rules(spec: Encoder, *, root: str = "bert", head: Mapping[str, str] = HEAD) -> list[Rule]:
    """Returns the weight rules: names only, for theirs and ours are laid out alike.

    Args:
        spec: the model.
        root: their name of the stack where the file holds a head.
        head: their names of the head's modules.
    """
    stack = start(spec, root)
    theirs, ours, tables = f"{stack}encoder.layer.{{l}}", "layers.{l}", f"{stack}embeddings"
    same = {
        f"{tables}.word_embeddings": "embed",
        f"{tables}.position_embeddings": "embed.position",
        f"{tables}.token_type_embeddings": "embed.types",
        f"{tables}.LayerNorm": "embed.norm",
        f"{theirs}.attention.self.query": f"{ours}.mix.mixer.q",
        f"{theirs}.attention.self.key": f"{ours}.mix.mixer.k",
        f"{theirs}.attention.self.value": f"{ours}.mix.mixer.v",
        f"{theirs}.attention.output.dense": f"{ours}.mix.mixer.out",
        f"{theirs}.attention.output.LayerNorm": f"{ours}.mix.out",
        f"{theirs}.intermediate.dense": f"{ours}.ffn.mixer.up",
        f"{theirs}.output.dense": f"{ours}.ffn.mixer.down",
        f"{theirs}.output.LayerNorm": f"{ours}.ffn.out",
        head["dense"]: "transform.dense",
        head["norm"]: "transform.norm",
        f"{stack}pooler.dense": "pool.dense",
        "cls.seq_relationship": "pool.classes",
    }
    logits = [rule(f"{head['logits']}.bias", "head.bias"), rule(f"{head['logits']}.decoder.weight", "head.weight")]
    return [*named(same), *logits]


FAMILY = Family(
    name="bert",
    model_types=("bert",),
    presets=PRESETS,
    read=read,
    write=write,
    rules=rules,
    kind=Encoder,
    prefix="bert.",
    ignored=re.compile(
        r"(\w+\.)?(embeddings\.(position|token_type)_ids|pooler\..*)"
        r"|(cls\.predictions|lm_head)\.decoder\.bias|cls\.seq_relationship\..*"
    ),
    renamed={r"LayerNorm\.gamma$": "LayerNorm.weight", r"LayerNorm\.beta$": "LayerNorm.bias"},
)
