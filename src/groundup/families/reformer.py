"""Reformer: reversible layers with attention in chunks and to what hashes alike, and positions in two parts.

Source: Kitaev et al. 2020 (arXiv:2001.04451); the sizes are those of the configurations of
google/reformer-crime-and-punishment and google/reformer-enwik8. What differs from transformers: hashing has a seed of
its own, 0 where a configuration's ``hash_seed`` is null, and draws no other directions at every call; a text of any
length is trained on; the bias of the head, which transformers 5.23 leaves out although its weights hold one, is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from groundup.errors import SpecError
from groundup.families.family import ACTS, THEIR_ACTS, Family, Keys
from groundup.mixers.base import MixerSpec
from groundup.mixers.chunked import ChunkedAttention
from groundup.mixers.hashed import HashedAttention
from groundup.mixers.mlp import MLP, ChunkedMLP
from groundup.model.heads import Untied
from groundup.model.residual import Residual
from groundup.model.reversible import Reversible, ReversibleDecoder
from groundup.parts.embed import Embed
from groundup.parts.init import ScaledNormal
from groundup.parts.norm import LayerNorm
from groundup.parts.position import Axial, Learned
from groundup.rules import SQUEEZE, Op, Rule, named, rule

KINDS = {"local": ChunkedAttention, "lsh": HashedAttention}
FIRST = Op(lambda ts: [ts[0][0]], lambda ts: [ts[0][None]])  # a table with an axis of length 1 in front


def reformer(
    mixers: Sequence[MixerSpec],
    *,
    width: int,
    hidden: int,
    vocab: int,
    position: Axial | Learned,
    context: int,
    at_a_time: int | None = None,
    act: str = "relu",
    eps: float = 1e-12,
    deviation: float = 0.02,
    dropout: float = 0.0,
) -> ReversibleDecoder:
    """Returns the spec of a Reformer of these sizes.

    Args:
        mixers: the attention of each layer.
        width: the width of one of both streams.
        hidden: the width inside the feed-forward part.
        vocab: the number of token ids.
        position: what the embedding adds for places.
        context: the longest sequence that is meant.
        at_a_time: how many tokens the feed-forward parts read at a time; None means all.
        act: the activation.
        eps: of the norms.
        deviation: of the first weights.
        dropout: of what goes into the streams.
    """
    norm = LayerNorm(eps=eps)
    part = partial(Residual, pre=norm, dropout=dropout)
    mlp = MLP(hidden=hidden, act=act, bias=True)
    ffn = part(ChunkedMLP(hidden=hidden, act=act, bias=True, tokens=at_a_time) if at_a_time else mlp)
    return ReversibleDecoder(
        width=width,
        vocab=vocab,
        context=context,
        layers=tuple(Reversible(mix=part(mixer), ffn=ffn) for mixer in mixers),
        embed=Embed(position=position, dropout=dropout),
        norm=norm,
        head=Untied(bias=True),
        init=ScaledNormal(deviation=deviation),
    )


def crime_and_punishment() -> ReversibleDecoder:
    """Returns the spec of the Reformer that was trained on Crime and Punishment, texts of half a million tokens."""
    sizes = {"heads": 2, "head_width": 64}
    pair = (ChunkedAttention(**sizes), HashedAttention(factors=(64, 128), **sizes))
    position = Axial(shape=(512, 1024), widths=(64, 192))
    return reformer(pair * 3, width=256, hidden=512, vocab=320, position=position, context=524_288)


def enwik8() -> ReversibleDecoder:
    """Returns the spec of the Reformer that was trained on the bytes of Wikipedia."""
    sizes = {"heads": 8, "head_width": 128}
    local = ChunkedAttention(chunk=128, **sizes)
    hashed = HashedAttention(factors=(512,), rounds=4, chunk=256, **sizes)
    mixers = (local, local, hashed, local) * 3
    position = Axial(shape=(128, 512), widths=(256, 768))
    return reformer(mixers, width=1024, hidden=4096, vocab=258, position=position, context=65_536)


PRESETS = {"reformer-crime-and-punishment": crime_and_punishment, "reformer-enwik8": enwik8}


def read(keys: Keys) -> ReversibleDecoder:
    """Returns the spec of a Reformer configuration.

    Raises:
        SpecError: a value is none that the family has, or chunks of both kinds do not fit together.
    """
    keys.only(is_decoder=True, tie_word_embeddings=False, local_num_chunks_after=0, lsh_num_chunks_after=0)
    keys.skip("chunk_size_lm_head", "classifier_dropout", "num_hidden_layers", "intermediate_size")
    keys.skip("num_chunks_before", "num_chunks_after", "attention_probs_dropout_prob", "sinusoidal_pos_embds")
    sizes = {
        "heads": keys.number("num_attention_heads", default=12),
        "head_width": keys.number("attention_head_size", default=64),
    }
    of_kind = {"local": _local(keys, sizes), "lsh": _hashed(keys, sizes)}
    named = keys.take("attn_layers", default=["local", "lsh"] * 3)
    if not isinstance(named, list | tuple) or not named or any(name not in KINDS for name in named):
        raise SpecError(f"the configuration's attn_layers is {named!r}; expected a list of local and lsh")
    if len(set(named)) == 2 and of_kind["lsh"].chunk % of_kind["local"].chunk:
        raise SpecError(
            f"local_attn_chunk_length={of_kind['local'].chunk} does not divide "
            f"lsh_attn_chunk_length={of_kind['lsh'].chunk}, so transformers would pad by more than a chunk"
        )
    context = keys.number("max_position_embeddings", default=4096)
    return reformer(
        [of_kind[name] for name in named],
        width=keys.number("hidden_size", default=256),
        hidden=keys.number("feed_forward_size", default=512),
        vocab=keys.number("vocab_size", default=320),
        position=_position(keys, context),
        context=context,
        at_a_time=keys.take("chunk_size_feed_forward", default=None) or None,  # theirs says 0 for all
        act=keys.choice("hidden_act", known=ACTS, default="relu"),
        eps=keys.number("layer_norm_eps", default=1e-12, whole=False),
        deviation=keys.number("initializer_range", default=0.02, whole=False),
        dropout=keys.number("hidden_dropout_prob", default=0.05, whole=False),
    )


def _local(keys: Keys, sizes: dict[str, Any]) -> ChunkedAttention:
    return ChunkedAttention(
        chunk=keys.number("local_attn_chunk_length", default=64),
        before=keys.take("local_num_chunks_before", default=1),
        dropout=keys.number("local_attention_probs_dropout_prob", default=0.05, whole=False),
        **sizes,
    )


def _hashed(keys: Keys, sizes: dict[str, Any]) -> HashedAttention:
    buckets = keys.take("num_buckets")  # where it is null, transformers chooses by the first text that it sees
    return HashedAttention(
        factors=tuple(buckets) if isinstance(buckets, list) else (buckets,),
        rounds=keys.number("num_hashes", default=1),
        chunk=keys.number("lsh_attn_chunk_length", default=64),
        before=keys.take("lsh_num_chunks_before", default=1),
        seed=keys.take("hash_seed", default=0),
        dropout=keys.number("lsh_attention_probs_dropout_prob", default=0.0, whole=False),
        **sizes,
    )


def _position(keys: Keys, context: int) -> Axial | Learned:
    usual = {"axial_pos_shape": (64, 64), "axial_pos_embds_dim": (64, 192)}
    told = {name: keys.take(name, default=default) for name, default in usual.items()}
    for name, value in told.items():
        if not isinstance(value, list | tuple):
            raise SpecError(f"the configuration's {name} is {value!r}; expected a list of two numbers")
    shape, widths = map(tuple, told.values())
    deviation = keys.number("axial_norm_std", default=1.0, whole=False)
    if not keys.flag("axial_pos_embds", default=True):
        return Learned(context)
    return Axial(shape=shape, widths=widths, deviation=deviation)


def write(spec: ReversibleDecoder) -> dict[str, Any] | None:
    """Returns the configuration of a Reformer spec."""
    match spec:
        case ReversibleDecoder(
            layers=(
                Reversible(
                    mix=Residual(mixer=ChunkedAttention() | HashedAttention() as attention),
                    ffn=Residual(mixer=MLP() as mlp, pre=LayerNorm(eps=eps)),
                ),
                *_,
            ),
            init=ScaledNormal(deviation=deviation),
        ) if mlp.act in THEIR_ACTS:
            mixers: list[Any] = [layer.parts["mix"].mixer for layer in spec.layers]
            names = {kind: name for name, kind in KINDS.items()}
            if any(type(mixer) not in names for mixer in mixers):
                return None
            return {
                "architectures": ["ReformerModelWithLMHead"],
                "pad_token_id": 0,  # with which theirs fills the last chunk
                "is_decoder": True,
                "attn_layers": [names[type(mixer)] for mixer in mixers],
                "hidden_size": spec.width,
                "feed_forward_size": mlp.hidden,
                "chunk_size_feed_forward": mlp.tokens if isinstance(mlp, ChunkedMLP) else 0,
                "vocab_size": spec.vocab,
                "max_position_embeddings": spec.context,
                "num_attention_heads": attention.heads,
                "attention_head_size": attention.head_width,
                "hidden_act": THEIR_ACTS[mlp.act],
                "layer_norm_eps": eps,
                "initializer_range": deviation,
                "hidden_dropout_prob": spec.embed.dropout,
                **_said_of_places(spec.embed.position),
                **_said_of_chunks(next((m for m in mixers if isinstance(m, ChunkedAttention)), None)),
                **_said_of_hashes(next((m for m in mixers if isinstance(m, HashedAttention)), None)),
            }
    return None


def _said_of_places(position: Any) -> dict[str, Any]:
    if not isinstance(position, Axial):
        return {"axial_pos_embds": False}
    said = {"axial_pos_shape": list(position.shape), "axial_pos_embds_dim": list(position.widths)}
    return {"axial_pos_embds": True, "axial_norm_std": position.deviation} | said


def _said_of_chunks(local: ChunkedAttention | None) -> dict[str, Any]:
    if local is None:
        return {}
    return {
        "local_attn_chunk_length": local.chunk,
        "local_num_chunks_before": local.before,
        "local_attention_probs_dropout_prob": local.dropout,
    }


def _said_of_hashes(hashed: HashedAttention | None) -> dict[str, Any]:
    if hashed is None:
        return {"num_buckets": 2}  # of layers that are not there
    return {
        "num_buckets": list(hashed.factors) if len(hashed.factors) > 1 else hashed.factors[0],
        "num_hashes": hashed.rounds,
        "lsh_attn_chunk_length": hashed.chunk,
        "lsh_num_chunks_before": hashed.before,
        "lsh_attention_probs_dropout_prob": hashed.dropout,
        "hash_seed": hashed.seed,
    }


def rules(spec: ReversibleDecoder) -> list[Rule]:
    """Returns the weight rules: theirs and ours are laid out alike, but for the tables of positions."""
    places, theirs, ours = "reformer.embeddings.position_embeddings", "reformer.encoder.layers.{l}", "layers.{l}"
    attention = (("query", "q"), ("query_key", "q"), ("key", "k"), ("value", "v"))
    same = {
        "reformer.embeddings.word_embeddings": "embed",
        f"{places}.embedding": "embed.position",
        f"{theirs}.attention.layer_norm": f"{ours}.mix.pre",
        f"{theirs}.attention.output.dense": f"{ours}.mix.mixer.out",
        f"{theirs}.feed_forward.layer_norm": f"{ours}.ffn.pre",
        f"{theirs}.feed_forward.dense.dense": f"{ours}.ffn.mixer.up",
        f"{theirs}.feed_forward.output.dense": f"{ours}.ffn.mixer.down",
        "reformer.encoder.layer_norm": "norm",
    }
    hashes = [isinstance(layer.parts["mix"].mixer, HashedAttention) for layer in spec.layers]
    return [
        *named(same),
        rule(f"{places}.weights.0", "embed.position.row.weight", SQUEEZE),
        rule(f"{places}.weights.1", "embed.position.column.weight", FIRST),
        *(
            rule(f"reformer.encoder.layers.{i}.attention.self_attention.{a}.weight", f"layers.{i}.mix.mixer.{b}.weight")
            for i, hashed in enumerate(hashes)
            for a, b in attention
            if (a == "value") or (a == "query_key") == hashed
        ),
        rule("lm_head.decoder.weight", "head.weight"),
        rule("lm_head.bias", "head.bias"),
    ]


FAMILY = Family(
    name="reformer",
    model_types=("reformer",),
    presets=PRESETS,
    read=read,
    write=write,
    rules=rules,
    kind=ReversibleDecoder,
)
