"""GPT-2, GPT-3 and Jurassic-1: pre-norm layers, learnt positions, tanh GELU, tied embeddings, biases throughout.

Sources: Radford et al. 2019 (Language Models are Unsupervised Multitask Learners), Brown et al. 2020
(arXiv:2005.14165), table 2.1. GPT-3's locally banded sparse layers are dense here: the paper does not give the
bands, and the parameters are the same. Two sizes of that table contradict themselves; 13B is built 5120 wide, as
its table D.1 counts it, and XL with 16 heads of 128.

GPT-2s by other names: Lieber et al. 2021 (Jurassic-1: Technical Details and Evaluation), table 1, whose vocabulary of
"256K" is taken as 256,000; and the recipes of MosaicML's llm-foundry (scripts/train/yamls/pretrain), which it calls MPT
although they have learnt positions and biases, unlike the published MPTs in groundup.families.mpt.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from groundup.families.family import SUMMARY, Family, Keys, attention_of, head_width
from groundup.families.names import read_named, write_named
from groundup.mixers.attention import Attention
from groundup.mixers.mlp import MLP
from groundup.model.decoder import Decoder
from groundup.model.heads import Tied, Untied
from groundup.model.layer import Layer
from groundup.model.residual import Residual
from groundup.parts.embed import Embed
from groundup.parts.init import ScaledNormal
from groundup.parts.norm import LayerNorm
from groundup.parts.position import Learned, NoPosition
from groundup.rules import TRANSPOSE, Rule, chain, joined, named, split
from groundup.specs import override_all


def gpt2(
    *,
    width: int,
    layers: int,
    heads: int,
    context: int = 1024,
    vocab: int = 50257,
    hidden: int | None = None,
    act: str = "gelu_tanh",
    eps: float = 1e-5,
    bias: bool = True,
    tied: bool = True,
    deviation: float = 0.02,
    embed_dropout: float = 0.0,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
) -> Decoder:
    """Returns the spec of a GPT-2 of these sizes.

    Args:
        width: the width of the residual stream.
        layers: the number of layers.
        heads: attention heads, each ``width / heads`` wide.
        context: the number of learnt positions.
        vocab: the number of token ids.
        hidden: the width inside the feed-forward part; None means four times ``width``.
        act: the activation.
        eps: of the norms.
        bias: whether maps and norms have biases.
        tied: whether the head reads the token embedding.
        deviation: of the first weights.
        embed_dropout: of the embeddings.
        dropout: of what layers add to the stream.
        attention_dropout: of attention weights.

    Raises:
        SpecError: ``heads`` does not divide ``width``.
    """
    norm = LayerNorm(eps=eps, bias=bias)
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
    layer = Layer(mix=Residual(attention, pre=norm, dropout=dropout), ffn=Residual(mlp, pre=norm, dropout=dropout))
    return Decoder(
        width=width,
        vocab=vocab,
        context=context,
        layers=(layer,) * layers,
        embed=Embed(position=Learned(context), dropout=embed_dropout),
        norm=norm,
        head=Tied() if tied else Untied(),
        init=ScaledNormal(deviation=deviation),
    )


gpt3 = partial(gpt2, context=2048)
j1 = partial(gpt2, context=2048, vocab=256_000)
mpt_recipe = partial(gpt2, context=2048, vocab=50368, act="gelu")

PRESETS = {
    "gpt2": partial(gpt2, width=768, layers=12, heads=12),
    "gpt2-medium": partial(gpt2, width=1024, layers=24, heads=16),
    "gpt2-large": partial(gpt2, width=1280, layers=36, heads=20),
    "gpt2-xl": partial(gpt2, width=1600, layers=48, heads=25),
    "gpt3-125m": partial(gpt3, width=768, layers=12, heads=12),
    "gpt3-350m": partial(gpt3, width=1024, layers=24, heads=16),
    "gpt3-760m": partial(gpt3, width=1536, layers=24, heads=16),
    "gpt3-1.3b": partial(gpt3, width=2048, layers=24, heads=16),
    "gpt3-2.7b": partial(gpt3, width=2560, layers=32, heads=32),
    "gpt3-6.7b": partial(gpt3, width=4096, layers=32, heads=32),
    "gpt3-13b": partial(gpt3, width=5120, layers=40, heads=40),
    "gpt3-175b": partial(gpt3, width=12288, layers=96, heads=96),
    "j1-large": partial(j1, width=4096, layers=32, heads=32),
    "j1-jumbo": partial(j1, width=13824, layers=76, heads=96),
    "mpt-125m": partial(mpt_recipe, width=768, layers=12, heads=12),
    "mpt-350m": partial(mpt_recipe, width=1024, layers=24, heads=16),
    "mpt-760m": partial(mpt_recipe, width=1536, layers=24, heads=12),
    "mpt-1b": partial(mpt_recipe, width=2048, layers=24, heads=16),
    "mpt-13b": partial(mpt_recipe, width=5120, layers=40, heads=40),
    "mpt-70b": partial(mpt_recipe, width=8192, layers=80, heads=64),
}


NAMES = {
    "width": ("n_embd", "hidden_size", 768),
    "layers": ("n_layer", "num_hidden_layers", 12),
    "heads": ("n_head", "num_attention_heads", 12),
    "context": ("n_positions", "max_position_embeddings", 1024),
    "vocab": ("vocab_size", 50257),
    "hidden": ("n_inner", None),
    "act": ("activation_function", "hidden_act", "gelu_new"),
    "eps": ("layer_norm_epsilon", 1e-5),
    "tied": ("tie_word_embeddings", True),
    "deviation": ("initializer_range", 0.02),
    "embed_dropout": ("embd_pdrop", 0.1),
    "dropout": ("resid_pdrop", 0.1),
    "attention_dropout": ("attn_pdrop", 0.1),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of a GPT-2 configuration."""
    scaled = keys.flag("scale_attn_weights", default=True)
    by_layer = keys.flag("scale_attn_by_inverse_layer_idx", default=False)
    keys.among("reorder_and_upcast_attn", False, True)  # a matter of precision, not of mathematics
    keys.only(add_cross_attention=False, n_special=0)
    keys.skip("predict_special_tokens")  # of such tokens there are none
    keys.skip(*SUMMARY)
    said = read_named(keys, NAMES)
    keys.only(n_ctx=said["context"])
    return scored(gpt2(**said), scaled=scaled, by_layer=by_layer)


def scored(spec: Decoder, *, scaled: bool, by_layer: bool) -> Decoder:
    """Returns a GPT-2 whose scores are over the root of the head width or not, and over the layer's number or not."""
    first = attention_of(spec).head_width ** -0.5 if scaled else 1.0
    scales = {i: first / (i + 1 if by_layer else 1) for i in range(len(spec.layers))}
    if scaled:
        scales = {i: scale for i, scale in scales.items() if scale != first}  # that is what goes unsaid
    return override_all(spec, {f"layers.{i}.mix.mixer.score.scale": scale for i, scale in scales.items()})


def write(spec: Decoder) -> dict[str, Any] | None:
    """Returns the configuration of a GPT-2 spec."""
    match spec:
        case Decoder(layers=(Layer(), *_), norm=LayerNorm()):
            return write_named(spec, NAMES, architectures=["GPT2LMHeadModel"], **_write_scores(spec))
    return None


def _write_scores(spec: Decoder) -> dict[str, bool]:
    mixers = [layer.mix.mixer for layer in spec.layers if layer.mix is not None]
    scales = [mixer.score.scale for mixer in mixers if isinstance(mixer, Attention)] or [None]
    return {"scale_attn_weights": scales[0] is None, "scale_attn_by_inverse_layer_idx": scales[-1] != scales[0]}


def rules(spec: Decoder) -> list[Rule]:
    """Returns the weight rules; their matrices are stored transposed and q, k and v as one."""
    theirs, ours = "transformer.h.{l}", "layers.{l}"
    same = {
        "transformer.wte": "embed",
        "transformer.wpe": "embed.position",
        f"{theirs}.ln_1": f"{ours}.mix.pre",
        f"{theirs}.ln_2": f"{ours}.ffn.pre",
        "transformer.ln_f": "norm",
        "lm_head": "head",
    }
    turned = {
        f"{theirs}.attn.c_proj": f"{ours}.mix.mixer.out",
        f"{theirs}.mlp.c_fc": f"{ours}.ffn.mixer.up",
        f"{theirs}.mlp.c_proj": f"{ours}.ffn.mixer.down",
    }
    qkv = joined(f"{theirs}.attn.c_attn", f"{ours}.mix.mixer", "qkv", chain(TRANSPOSE, split(3)))
    return [*named(same), *named(turned, TRANSPOSE), *qkv]


FAMILY = Family(
    name="gpt2",
    model_types=("gpt2",),
    presets=PRESETS,
    read=read,
    write=write,
    rules=rules,
    prefix="transformer.",
    ignored=re.compile(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)"),
)
