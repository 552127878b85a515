"""OPT: pre-norm layers, learnt positions, ReLU, biases throughout, tied embeddings.

Source: Zhang et al. 2022 (arXiv:2205.01068), section 2.1 and table 1. The table of positions has two unused rows
before the first. The 350M model alone norms after the sum, has no last norm, and a table of tokens half as wide as
its stream, with a map from it and one back.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from groundup.families.family import Family, Keys, head_width
from groundup.families.names import read_named, write_named
from groundup.mixers.attention import Attention
from groundup.mixers.mlp import MLP
from groundup.model.decoder import Decoder
from groundup.model.heads import NoTransform, Project, Tied, Untied
from groundup.model.layer import Layer
from groundup.model.residual import Residual
from groundup.parts.embed import Embed, NarrowEmbed
from groundup.parts.init import ScaledNormal
from groundup.parts.norm import LayerNorm, NoNorm
from groundup.parts.position import Learned, NoPosition
from groundup.rules import Rule, named


def opt(
    *,
    width: int,
    layers: int,
    heads: int,
    hidden: int | None = None,
    vocab: int = 50272,
    context: int = 2048,
    table_width: int | None = None,
    act: str = "relu",
    pre_norm: bool = True,
    last_norm: bool = True,
    bias: bool = True,
    learnt_norms: bool = True,
    tied: bool = True,
    deviation: float = 0.02,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
) -> Decoder:
    """Returns the spec of an OPT of these sizes.

    Args:
        width: the width of the residual stream.
        layers: the number of layers.
        heads: attention heads, each ``width / heads`` wide.
        hidden: the width inside the feed-forward part; None means four times ``width``.
        vocab: the number of token ids.
        context: the number of learnt positions.
        table_width: the width of the tokens' vectors; None means ``width``.
        act: the activation.
        pre_norm: whether norms come before the parts of a layer rather than after the sum.
        last_norm: whether there is a norm before the head.
        bias: whether maps have biases.
        learnt_norms: whether norms have weights and biases.
        tied: whether the head reads the token embedding.
        deviation: of the first weights.
        dropout: of what layers add to the stream.
        attention_dropout: of attention weights.

    Raises:
        SpecError: ``heads`` does not divide ``width``.
    """
    norm = LayerNorm(weight=learnt_norms, bias=learnt_norms)
    before, after = (norm, NoNorm()) if pre_norm else (NoNorm(), norm)
    attention = Attention(
        heads=heads,
        kv_heads=heads,
        head_width=head_width(width, heads),
        position=NoPosition(),
        bias=bias,
        out_bias=bias,
        dropout=attention_dropout,
    )
    mlp = MLP(hidden=hidden or 4 * width, act=act, bias=bias)
    layer = Layer(
        mix=Residual(attention, pre=before, out=after, dropout=dropout),
        ffn=Residual(mlp, pre=before, out=after, dropout=dropout),
    )
    position, embed, transform = Learned(context, offset=2), Embed, NoTransform()
    if table_width:
        embed, transform = partial(NarrowEmbed, table_width=table_width), Project(table_width=table_width)
    return Decoder(
        width=width,
        vocab=vocab,
        context=context,
        layers=(layer,) * layers,
        embed=embed(position=position),
        norm=norm if last_norm else NoNorm(),
        head=(Tied if tied else Untied)(transform=transform),
        init=ScaledNormal(deviation=deviation),
    )


PRESETS = {
    "opt-125m": partial(opt, width=768, layers=12, heads=12),
    "opt-350m": partial(opt, width=1024, layers=24, heads=16, table_width=512, pre_norm=False, last_norm=False),
    "opt-1.3b": partial(opt, width=2048, layers=24, heads=32),
    "opt-2.7b": partial(opt, width=2560, layers=32, heads=32),
    "opt-6.7b": partial(opt, width=4096, layers=32, heads=32),
    "opt-13b": partial(opt, width=5120, layers=40, heads=40),
    "opt-30b": partial(opt, width=7168, layers=48, heads=56),
    "opt-66b": partial(opt, width=9216, layers=64, heads=72),
    "opt-175b": partial(opt, width=12288, layers=96, heads=96),
}


NAMES = {
    "width": ("hidden_size", 768),
    "layers": ("num_hidden_layers", 12),
    "heads": ("num_attention_heads", 12),
    "hidden": ("ffn_dim", 3072),
    "vocab": ("vocab_size", 50272),
    "context": ("max_position_embeddings", 2048),
    "act": ("activation_function", "relu"),
    "bias": ("enable_bias", True),
    "tied": ("tie_word_embeddings", True),
    "deviation": ("init_std", 0.02),
    "dropout": ("dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.0),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of an OPT configuration."""
    keys.only(layerdrop=0.0, activation_dropout=0.0)
    said = read_named(keys, NAMES)
    table_width = keys.number("word_embed_proj_dim", default=said["width"])
    pre_norm = keys.flag("do_layer_norm_before", default=True)
    return opt(
        table_width=None if table_width == said["width"] else table_width,
        pre_norm=pre_norm,
        last_norm=not keys.flag("_remove_final_layer_norm", default=False) and pre_norm,
        learnt_norms=keys.flag("layer_norm_elementwise_affine", default=True),
        **said,
    )


def write(spec: Decoder) -> dict[str, Any] | None:
    """Returns the configuration of an OPT spec."""
    match spec:
        case Decoder(layers=(Layer(mix=Residual() as mix), *_), embed=Embed(position=Learned()) as embed):
            pre_norm = mix.pre != NoNorm()
            return write_named(
                spec,
                NAMES,
                architectures=["OPTForCausalLM"],
                word_embed_proj_dim=embed.table_width if isinstance(embed, NarrowEmbed) else spec.width,
                do_layer_norm_before=pre_norm,
                _remove_final_layer_norm=pre_norm and spec.norm == NoNorm(),
                layer_norm_elementwise_affine=LayerNorm() in (mix.pre, mix.out),
            )
    return None


def rules(spec: Decoder) -> list[Rule]:
    """Returns the weight rules: names only, for theirs and ours are laid out alike."""
    theirs, ours = "model.decoder.layers.{l}", "layers.{l}"
    mix = spec.layers[0].mix
    norm = "out" if mix and mix.pre == NoNorm() else "pre"
    return named(
        {
            "model.decoder.embed_tokens": "embed",
            "model.decoder.project_in": "embed.widen",
            "model.decoder.embed_positions": "embed.position",
            **{f"{theirs}.self_attn.{x}_proj": f"{ours}.mix.mixer.{x}" for x in ("q", "k", "v", "out")},
            f"{theirs}.self_attn_layer_norm": f"{ours}.mix.{norm}",
            f"{theirs}.fc1": f"{ours}.ffn.mixer.up",
            f"{theirs}.fc2": f"{ours}.ffn.mixer.down",
            f"{theirs}.final_layer_norm": f"{ours}.ffn.{norm}",
            "model.decoder.final_layer_norm": "norm",
            "model.decoder.project_out": "transform",
            "lm_head": "head",
        }
    )


FAMILY = Family(name="opt", model_types=("opt",), presets=PRESETS, read=read, write=write, rules=rules, prefix="model.")
