"""ModernBERT: pre-norm layers without biases, rotations, GeGLU; two of three layers see 64 tokens to either side.

Source: Warner et al. 2024 (arXiv:2412.13663), section 2.1 and table 4. Local layers turn with a base of 10,000, those
that see all with 160,000. The first layer's attention has no norm, because the embedding has one.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from groundup.errors import SpecError
from groundup.families.family import ACTS, THEIR_ACTS, Family, Keys, head_width
from groundup.families.windows import on_layers, read_ropes, read_windows, write_kinds, write_ropes, write_window
from groundup.mixers.attention import Attention
from groundup.mixers.mlp import GatedMLP
from groundup.model.encoder import Encoder
from groundup.model.heads import Dense, NoHead, Tied
from groundup.model.layer import Layer
from groundup.model.residual import Residual
from groundup.parts.embed import Embed
from groundup.parts.init import ScaledNormal
from groundup.parts.mask import Everything, Near
from groundup.parts.norm import LayerNorm, NoNorm
from groundup.parts.position import RoPE
from groundup.rules import Rule, joined, named, split

NEAR_THETA, FAR_THETA, PATTERN = 1e4, 1.6e5, 3


def modernbert(
    *,
    width: int,
    layers: int,
    heads: int,
    hidden: int,
    vocab: int = 50368,
    context: int = 8192,
    position: RoPE = RoPE(theta=FAR_THETA),  # noqa: B008 - a spec is a value
    act: str = "gelu",
    norm: LayerNorm = LayerNorm(bias=False),  # noqa: B008
    attention_bias: bool = False,
    mlp_bias: bool = False,
    head: Dense | None = Dense(norm=LayerNorm(bias=False), bias=False),  # noqa: B008
    head_bias: bool = True,
    deviation: float = 0.02,
    dropout: tuple[float, float] = (0.0, 0.0),
) -> Encoder:
    """Returns the spec of a ModernBERT of these sizes whose layers all see everything.

    Args:
        width: the width of the residual stream.
        layers: the number of layers.
        heads: attention heads, each ``width / heads`` wide.
        hidden: the width inside the feed-forward part.
        vocab: the number of token ids.
        context: the longest text.
        position: the rotation of queries and keys.
        act: the activation of the gate.
        norm: of the embedding, of each part and before the head.
        attention_bias: whether the maps of attention have biases.
        mlp_bias: whether those of the feed-forward part have.
        head: what comes before the matrix of the head that fills in masked tokens; None means that there is no head.
        head_bias: whether its logits have a bias.
        deviation: of the first weights.
        dropout: of what goes into the stream at first, and of attention's weights and output.

    Raises:
        SpecError: ``heads`` does not divide ``width``.
    """
    of_embedding, of_attention = dropout
    attention = Attention(
        heads=heads,
        kv_heads=heads,
        head_width=head_width(width, heads),
        mask=Everything(),
        position=position,
        bias=attention_bias,
        out_bias=attention_bias,
        dropout=of_attention,
    )
    mix = Residual(attention, pre=norm, dropout=of_attention)
    ffn = Residual(GatedMLP(hidden=hidden, act=act, bias=mlp_bias), pre=norm)
    return Encoder(
        width=width,
        vocab=vocab,
        context=context,
        layers=(Layer(mix=mix.replace(pre=NoNorm()), ffn=ffn), *(Layer(mix=mix, ffn=ffn),) * (layers - 1)),
        embed=Embed(norm=norm, dropout=of_embedding),
        norm=norm,
        head=NoHead() if head is None else Tied(transform=head, bias=head_bias),
        init=ScaledNormal(deviation=deviation),
    )


def alternating(*, layers: int, **sizes: Any) -> Encoder:
    """Returns a ModernBERT in which each third layer sees everything, the first of them too."""
    local = [i for i in range(layers) if i % PATTERN]
    return on_layers(modernbert(layers=layers, **sizes), local, mask=Near(64), position=RoPE(theta=NEAR_THETA))


PRESETS = {
    "modernbert-base": partial(alternating, width=768, layers=22, heads=12, hidden=1152),
    "modernbert-large": partial(alternating, width=1024, layers=28, heads=16, hidden=2624),
}

# Keys that say how to compute the same, or how to train and classify.
OTHERS = (
    "classifier_pooling",
    "classifier_dropout",
    "deterministic_flash_attn",
    "initializer_cutoff_factor",
    "layer_norm_eps",
    "reference_compile",
    "repad_logits_with_grad",
    "sparse_prediction",
    "sparse_pred_ignore_index",
    "cls_token_id",
    "position_embedding_type",
)
ARCHITECTURES = ("ModernBertForMaskedLM", "ModernBertModel")


def read(keys: Keys) -> Encoder:
    """Returns the spec of a ModernBERT configuration."""
    keys.skip(*OTHERS)
    keys.only(mlp_dropout=0.0, rope_scaling=None)
    filling = keys.architecture(ARCHITECTURES) == ARCHITECTURES[0]
    keys.among("tie_word_embeddings", True, *([] if filling else [False]))  # without a head there is nothing to tie
    eps = keys.number("norm_eps", default=1e-5, whole=False)
    norm = LayerNorm(eps=eps, bias=keys.flag("norm_bias", default=False))
    head = Dense(
        act=keys.choice("classifier_activation", known=ACTS, default="gelu"),
        norm=norm,
        bias=keys.flag("classifier_bias", default=False),
    )
    head_bias, context = keys.flag("decoder_bias", default=True), keys.number("max_position_embeddings", default=8192)
    near, far = read_ropes(
        keys, context=context, near=("local_rope_theta", NEAR_THETA), far=("global_rope_theta", FAR_THETA)
    )
    spec = modernbert(
        width=keys.number("hidden_size", default=768),
        layers=keys.layers("num_hidden_layers", default=22),
        heads=keys.number("num_attention_heads", default=12),
        hidden=keys.number("intermediate_size", default=1152),
        vocab=keys.number("vocab_size", default=50368),
        context=context,
        position=far,
        act=keys.choice("hidden_activation", known=ACTS, default="gelu"),
        norm=norm,
        attention_bias=keys.flag("attention_bias", default=False),
        mlp_bias=keys.flag("mlp_bias", default=False),
        head=head if filling else None,
        head_bias=head_bias,
        deviation=keys.number("initializer_range", default=0.02, whole=False),
        dropout=(
            keys.number("embedding_dropout", default=0.0, whole=False),
            keys.number("attention_dropout", default=0.0, whole=False),
        ),
    )
    every = keys.number("global_attn_every_n_layers", default=PATTERN)
    reach = keys.number("local_attention", default=128) // 2
    return read_windows(keys, spec, window=reach, usual=lambda i: i % every > 0, mask=Near, position=near)


def write(spec: Encoder) -> dict[str, Any] | None:
    """Returns the configuration of a ModernBERT spec."""
    match spec:
        case Encoder(
            layers=(Layer(mix=Residual(mixer=Attention() as attention), ffn=Residual(mixer=GatedMLP() as mlp)), *_),
            norm=LayerNorm() as norm,
            init=ScaledNormal(deviation=deviation),
        ) if mlp.act in THEIR_ACTS:
            window = write_window(spec)["sliding_window"]
            return {
                "architectures": [ARCHITECTURES[spec.head == NoHead()]],
                "vocab_size": spec.vocab,
                "max_position_embeddings": spec.context,
                "hidden_size": spec.width,
                "num_hidden_layers": len(spec.layers),
                "num_attention_heads": attention.heads,
                "intermediate_size": mlp.hidden,
                "hidden_activation": THEIR_ACTS[mlp.act],
                "norm_eps": norm.eps,
                "norm_bias": norm.bias,
                "attention_bias": attention.bias,
                "mlp_bias": mlp.bias,
                "local_attention": 128 if window is None else 2 * window,
                "initializer_range": deviation,
                "embedding_dropout": spec.embed.dropout,
                "attention_dropout": attention.dropout,
                **_written_head(spec),
                **write_kinds(spec),
                **write_ropes(spec, near=NEAR_THETA, far=FAR_THETA),
            }
    return None


def _written_head(spec: Encoder) -> dict[str, Any]:
    match spec.head:
        case Tied(transform=Dense(act=act, bias=bias), bias=head_bias) if act in THEIR_ACTS:
            return {"classifier_activation": THEIR_ACTS[act], "classifier_bias": bias, "decoder_bias": head_bias}
        case NoHead():
            return {}
    raise SpecError("no ModernBERT of transformers has such a head")


def rules(spec: Encoder) -> list[Rule]:
    """Returns the weight rules; queries, keys and values are one matrix of theirs, gate and up another."""
    start, ours = "" if spec.head == NoHead() else "model.", "layers.{l}"
    theirs = f"{start}layers.{{l}}"
    same = {
        f"{start}embeddings.tok_embeddings": "embed",
        f"{start}embeddings.norm": "embed.norm",
        f"{theirs}.attn_norm": f"{ours}.mix.pre",
        f"{theirs}.attn.Wo": f"{ours}.mix.mixer.out",
        f"{theirs}.mlp_norm": f"{ours}.ffn.pre",
        f"{theirs}.mlp.Wo": f"{ours}.ffn.mixer.down",
        f"{start}final_norm": "norm",
        "head.dense": "transform.dense",
        "head.norm": "transform.norm",
        "decoder": "head",
    }
    qkv = joined(f"{theirs}.attn.Wqkv", f"{ours}.mix.mixer", "qkv", split(3))
    return [*named(same), *qkv, *joined(f"{theirs}.mlp.Wi", f"{ours}.ffn.mixer", ("gate", "up"), split(2))]


FAMILY = Family(
    name="modernbert",
    model_types=("modernbert",),
    presets=PRESETS,
    read=read,
    write=write,
    rules=rules,
    kind=Encoder,
    prefix="model.",
)
