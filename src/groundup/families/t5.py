"""T5, T5 v1.1 and FLAN-T5: an encoder and a decoder with biases by distance, RMSNorm, and unscaled scores.

Sources: Raffel et al. 2020 (arXiv:1910.10683), sections 2.1 and 3.1.1; Shazeer 2020 (arXiv:2002.05202) for v1.1's
gates; Chung et al. 2022 (FLAN-T5, arXiv:2210.11416). v1.0 ties its head to the table and scales what the head reads
by the root of the width; v1.1 has a head of its own.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import partial
from typing import Any

from groundup.errors import SpecError
from groundup.families.family import ACTS, THEIR_ACTS, Family, Keys
from groundup.mixers.attention import Attention
from groundup.mixers.base import MixerSpec
from groundup.mixers.cross import CrossAttention
from groundup.mixers.mlp import MLP, GatedMLP
from groundup.model.decoder import Decoder
from groundup.model.encoder import Encoder
from groundup.model.encoder_decoder import EncoderDecoder
from groundup.model.heads import NoHead, Tied, Untied
from groundup.model.layer import Layer
from groundup.model.residual import Residual
from groundup.parts.embed import Embed
from groundup.parts.mask import Causal, Everything
from groundup.parts.norm import RMSNorm
from groundup.parts.position import RelativeBias, SharedBias
from groundup.parts.score import Scaled
from groundup.rules import QKVO, Rule, named
from groundup.specs import override

TIED, BARE = Tied(width_power=-0.5), Tied()  # the head of v1.0, and v1.1's where a file has none of its own
HEAD = "lm_head.weight"


def t5(
    *,
    width: int,
    layers: int,
    heads: int,
    hidden: int,
    head_width: int = 64,
    decoder_layers: int | None = None,
    vocab: int = 32128,
    context: int = 512,
    buckets: int = 32,
    distance: int = 128,
    act: str = "relu",
    gated: bool = False,
    tied: bool = True,
    eps: float = 1e-6,
    start: int = 0,
    end: int | None = 1,
    dropout: float = 0.0,
) -> EncoderDecoder:
    """Returns the spec of a T5 of these sizes.

    Args:
        width: the width of the residual stream.
        layers: the number of the encoder's layers.
        heads: heads of every attention.
        hidden: the width inside the feed-forward part.
        head_width: the width of a head.
        decoder_layers: the number of the decoder's layers; None means as many as the encoder's.
        vocab: the number of token ids.
        context: the longest text that it was trained on; biases by distance reach further.
        buckets: of distances.
        distance: from which on they are not told apart.
        act: the activation of the feed-forward part.
        gated: whether it has a gate (v1.1).
        tied: whether the head reads the token table (v1.0).
        eps: of the norms.
        start: the token before the target's first.
        end: the token that ends a target; None where none does.
        dropout: of what goes into the stream and of attention weights; that inside the feed-forward part is left out.
    """
    norm = RMSNorm(eps=eps)
    sizes = {"heads": heads, "kv_heads": heads, "head_width": head_width, "score": Scaled(scale=1.0)}
    part = partial(Residual, pre=norm, dropout=dropout)
    ffn = part(GatedMLP(hidden=hidden, act=act) if gated else MLP(hidden=hidden, act=act))
    see = partial(Attention, position=SharedBias(), dropout=dropout, **sizes)
    bias = partial(RelativeBias, heads=heads, buckets=buckets, distance=distance)
    common = {"width": width, "vocab": vocab, "context": context, "norm": norm}
    written = Layer(mix=part(see(mask=Causal())), cross=part(CrossAttention(dropout=dropout, **sizes)), ffn=ffn)
    return EncoderDecoder(
        encoder=Encoder(
            layers=(Layer(mix=part(see(mask=Everything())), ffn=ffn),) * layers,
            embed=Embed(position=bias(both_ways=True), dropout=dropout),
            head=NoHead(),
            **common,
        ),
        decoder=Decoder(
            layers=(written,) * (decoder_layers or layers),
            embed=Embed(position=bias(both_ways=False), dropout=dropout),
            head=TIED if tied else Untied(),
            **common,
        ),
        start=start,
        end=end,
    )


t5v11 = partial(t5, act="gelu_tanh", gated=True, tied=False)

SIZES = {
    "small": partial(t5, width=512, layers=6, heads=8, hidden=2048),
    "base": partial(t5, width=768, layers=12, heads=12, hidden=3072),
    "large": partial(t5, width=1024, layers=24, heads=16, hidden=4096),
    "3b": partial(t5, width=1024, layers=24, heads=32, head_width=128, hidden=16384),
    "11b": partial(t5, width=1024, layers=24, heads=128, head_width=128, hidden=65536),
}
SIZES_V11 = {
    "small": partial(t5v11, width=512, layers=8, heads=6, hidden=1024),
    "base": partial(t5v11, width=768, layers=12, heads=12, hidden=2048),
    "large": partial(t5v11, width=1024, layers=24, heads=16, hidden=2816),
    "xl": partial(t5v11, width=2048, layers=24, heads=32, hidden=5120),
    "xxl": partial(t5v11, width=4096, layers=24, heads=64, hidden=10240),
}
PRESETS = {
    **{f"t5-{size}": make for size, make in SIZES.items()},
    **{f"t5-v1.1-{size}": make for size, make in SIZES_V11.items()},
    **{f"flan-t5-{size}": make for size, make in SIZES_V11.items()},
}


FORCED = {"first": "bos", "last": "eos"}  # of what targets are made to begin and to close with
OTHER_PARTS = ("EncoderModel", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")


def read(keys: Keys) -> EncoderDecoder:
    """Returns the spec of a T5 configuration."""
    said = keys.config.get("architectures")
    named = str(said[0] if isinstance(said, list) and said else said or "")
    if named.endswith(OTHER_PARTS):
        raise SpecError(f"the {keys.family} architecture {named} is not known; known is ...ForConditionalGeneration")
    keys.skip("initializer_factor", "classifier_dropout")
    gated, act = _read_projection(keys)
    layers = keys.layers("num_layers", default=6)
    tied = keys.flag("tie_word_embeddings", default=True)
    scaled = keys.flag("scale_decoder_outputs", default=tied)
    spec = t5(
        width=keys.number("d_model", default=512),
        layers=layers,
        heads=keys.number("num_heads", default=8),
        hidden=keys.number("d_ff", default=2048),
        head_width=keys.number("d_kv", default=64),
        decoder_layers=keys.layers("num_decoder_layers", default=layers),
        vocab=keys.number("vocab_size", default=32128),
        context=keys.number("n_positions", default=512),
        buckets=keys.number("relative_attention_num_buckets", default=32),
        distance=keys.number("relative_attention_max_distance", default=128),
        act=act,
        gated=gated,
        eps=keys.number("layer_norm_epsilon", default=1e-6, whole=False),
        start=keys.token("decoder_start_token_id", default=0) or 0,
        end=keys.token("eos_token_id", default=1),
        dropout=keys.number("dropout_rate", default=0.1, whole=False),
    )
    forced = {x: keys.token(f"forced_{name}_token_id", default=None) for x, name in FORCED.items()}
    return override(spec.replace(**forced), "decoder.head", TIED if tied and scaled else BARE if tied else Untied())


def fit(spec: EncoderDecoder, names: Collection[str]) -> EncoderDecoder:
    """Returns the spec with the head that a file with tensors of these names has.

    Version 5 of transformers calls every head tied, but keeps one that a file holds; and where it makes a model whose
    configuration says that the head is not, it ties it all the same, and writes the table alone.
    """
    if spec.decoder.head == TIED:
        return spec
    return override(spec, "decoder.head", Untied() if HEAD in names else BARE)


def _read_projection(keys: Keys) -> tuple[bool, str]:
    """Returns whether the feed-forward part has a gate, and its activation; either may be said by itself too."""
    said = str(keys.take("feed_forward_proj", default="relu"))
    gate, _, act = said.rpartition("-")
    if gate not in ("", "gated") or act not in ACTS:
        raise SpecError(f"the configuration's feed_forward_proj is {said!r}; expected such as relu or gated-gelu")
    act = "gelu_new" if said == "gated-gelu" else act  # which that name has always meant in T5
    return keys.flag("is_gated_act", default=gate == "gated"), keys.choice("dense_act_fn", known=ACTS, default=act)


def write(spec: EncoderDecoder) -> dict[str, Any]:
    """Returns the configuration of a T5 spec.

    Raises:
        SpecError: the spec is of other parts.
    """
    match spec:
        case EncoderDecoder(
            encoder=Encoder(embed=Embed(position=RelativeBias() as bias), norm=RMSNorm(eps=eps)) as encoder,
            decoder=Decoder(
                layers=(
                    Layer(
                        mix=Residual(mixer=Attention() as attention), ffn=Residual(mixer=(GatedMLP() | MLP()) as mlp)
                    ),
                    *_,
                )
            ) as decoder,
        ):
            forced = {f"forced_{name}_token_id": getattr(spec, x) for x, name in FORCED.items()}
            return {
                "architectures": ["T5ForConditionalGeneration"],
                "vocab_size": encoder.vocab,
                "d_model": encoder.width,
                "d_kv": attention.head_width,
                "d_ff": mlp.hidden,
                "num_layers": len(encoder.layers),
                "num_decoder_layers": len(decoder.layers),
                "num_heads": attention.heads,
                "n_positions": decoder.context,
                "relative_attention_num_buckets": bias.buckets,
                "relative_attention_max_distance": bias.distance,
                "dropout_rate": attention.dropout,
                "layer_norm_epsilon": eps,
                "feed_forward_proj": _projection(mlp),
                "is_encoder_decoder": True,
                "decoder_start_token_id": spec.start,
                "eos_token_id": spec.end,
                "tie_word_embeddings": decoder.head.tied,
                **({"scale_decoder_outputs": False} if decoder.head == BARE else {}),
                **{name: token for name, token in forced.items() if token is not None},
            }
    raise SpecError("no T5 of transformers is made of these parts; see groundup.families.t5 for those it has")


def _projection(mlp: MixerSpec) -> str:
    match mlp:
        case GatedMLP(act="gelu_tanh"):
            return "gated-gelu"
        case GatedMLP(act="gelu"):
            return "gated-gelu_python"  # for gated-gelu is the one above
        case GatedMLP(act=act) if act in THEIR_ACTS:
            return f"gated-{THEIR_ACTS[act]}"
        case MLP(act=act) if act in THEIR_ACTS:
            return THEIR_ACTS[act]
    raise SpecError(f"no T5 of transformers has {mlp!r}")


def rules(spec: EncoderDecoder, *, ffn: str = "DenseReluDense") -> list[Rule]:
    """Returns the weight rules: names only, for theirs and ours are laid out alike.

    Args:
        spec: the model.
        ffn: what they call the feed-forward part.
    """
    gated = isinstance(mixer_of(spec), GatedMLP)
    fed = {"wi_0": "gate", "wi_1": "up", "wo": "down"} if gated else {"wi": "up", "wo": "down"}
    inside = {"mix": ("SelfAttention", QKVO), "cross": ("EncDecAttention", QKVO), "ffn": (ffn, fed)}
    same = {"shared": "encoder.embed", "lm_head": "decoder.head"}
    for stack, parts in (("encoder", ("mix", "ffn")), ("decoder", ("mix", "cross", "ffn"))):
        table = "block.0.layer.0.SelfAttention.relative_attention_bias"
        same |= {f"{stack}.{table}": f"{stack}.embed.position", f"{stack}.final_layer_norm": f"{stack}.norm"}
        for place, part in enumerate(parts):
            theirs, ours = f"{stack}.block.{{l}}.layer.{place}", f"{stack}.layers.{{l}}.{part}"
            name, maps = inside[part]
            same[f"{theirs}.layer_norm"] = f"{ours}.pre"
            same |= {f"{theirs}.{name}.{a}": f"{ours}.mixer.{b}" for a, b in maps.items()}
    return named(same)


def mixer_of(spec: EncoderDecoder) -> MixerSpec | None:
    """Returns the mixer of the feed-forward part of the first layer."""
    part = spec.encoder.layers[0].ffn
    return None if part is None else part.mixer


FAMILY = Family(
    name="t5",
    model_types=("t5",),
    presets=PRESETS,
    read=read,
    write=write,
    rules=rules,
    fit=fit,
    kind=EncoderDecoder,
    ignored=re.compile(  # copies of the shared table, and a table of the first checkpoints that nothing reads
        r"(en|de)coder\.embed_tokens\.weight|decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight"
    ),
)
