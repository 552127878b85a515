"""GPT-J: parallel layers that share one norm, partial rotation, tanh GELU, an untied head with a bias.

Source: Wang and Komatsuzaki 2021 (GPT-J-6B: A 6 Billion Parameter Autoregressive Language Model). Its rotation turns
neighbours, and ours halves of a head: the weight rules reorder queries and keys, which changes no product of them.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from groundup.errors import SpecError
from groundup.families.family import SUMMARY, Family, Keys, attention_of, head_width
from groundup.families.names import read_named, write_named
from groundup.mixers.attention import Attention
from groundup.mixers.mlp import MLP
from groundup.model.decoder import Decoder
from groundup.model.heads import Tied, Untied
from groundup.model.layer import Parallel
from groundup.model.residual import Residual
from groundup.parts.embed import Embed
from groundup.parts.init import ScaledNormal
from groundup.parts.norm import LayerNorm, NoNorm
from groundup.parts.position import RoPE
from groundup.rules import Rule, halves, named


def gptj(
    *,
    width: int,
    layers: int,
    heads: int,
    turned: int = 64,
    hidden: int | None = None,
    vocab: int = 50400,
    context: int = 2048,
    act: str = "gelu_tanh",
    eps: float = 1e-5,
    tied: bool = False,
    deviation: float = 0.02,
    embed_dropout: float = 0.0,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
) -> Decoder:
    """Returns the spec of a GPT-J of these sizes.

    Args:
        width: the width of the residual stream.
        layers: the number of layers.
        heads: attention heads, each ``width / heads`` wide.
        turned: how many of each head's values are turned.
        hidden: the width inside the feed-forward part; None means four times ``width``.
        vocab: the number of token ids.
        context: the longest sequence.
        act: the activation.
        eps: of the norms.
        tied: whether the head reads the token embedding.
        deviation: of the first weights.
        embed_dropout: of the embeddings.
        dropout: of what layers add to the stream.
        attention_dropout: of attention weights.

    Raises:
        SpecError: ``heads`` does not divide ``width``.
    """
    norm, each = LayerNorm(eps=eps), head_width(width, heads)
    attention = Attention(
        heads=heads, kv_heads=heads, head_width=each, position=RoPE(fraction=turned / each), dropout=attention_dropout
    )
    layer = Parallel(
        mix=Residual(attention, pre=NoNorm(), dropout=dropout),
        ffn=Residual(MLP(hidden=hidden or 4 * width, act=act, bias=True), pre=NoNorm(), dropout=dropout),
        pre=norm,
    )
    return Decoder(
        width=width,
        vocab=vocab,
        context=context,
        layers=(layer,) * layers,
        embed=Embed(dropout=embed_dropout),
        norm=norm,
        head=(Tied if tied else Untied)(bias=True),
        init=ScaledNormal(deviation=deviation),
    )


PRESETS = {"gpt-j-6b": partial(gptj, width=4096, layers=28, heads=16)}


NAMES = {
    "width": ("n_embd", "hidden_size", 4096),
    "layers": ("n_layer", "num_hidden_layers", 28),
    "heads": ("n_head", "num_attention_heads", 16),
    "hidden": ("n_inner", None),
    "vocab": ("vocab_size", 50400),
    "context": ("n_positions", "max_position_embeddings", 2048),
    "act": ("activation_function", "gelu_new"),
    "eps": ("layer_norm_epsilon", 1e-5),
    "tied": ("tie_word_embeddings", False),
    "deviation": ("initializer_range", 0.02),
    "embed_dropout": ("embd_pdrop", 0.0),
    "dropout": ("resid_pdrop", 0.0),
    "attention_dropout": ("attn_pdrop", 0.0),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of a GPT-J configuration."""
    keys.only(rotary=True, scale_attn_weights=True)
    keys.skip(*SUMMARY)
    said = read_named(keys, NAMES)
    keys.only(n_ctx=said["context"])
    return gptj(turned=keys.number("rotary_dim", default=64), **said)


def write(spec: Decoder) -> dict[str, Any] | None:
    """Returns the configuration of a GPT-J spec."""
    match spec:
        case Decoder(
            layers=(Parallel(mix=Residual(mixer=Attention(position=RoPE(fraction=fraction)) as attention)), *_),
            norm=LayerNorm(),
        ):
            turned = int(attention.head_width * fraction)
            return write_named(spec, NAMES, architectures=["GPTJForCausalLM"], rotary_dim=turned)
    return None


def rules(spec: Decoder) -> list[Rule]:
    """Returns the weight rules; queries and keys are reordered for the rotation."""
    theirs, ours = "transformer.h.{l}", "layers.{l}"
    attention = attention_of(spec)
    match attention.position:
        case RoPE(fraction=fraction):
            reordered = halves(attention.heads, int(attention.head_width * fraction))
        case other:
            raise SpecError(f"{other!r} is no position of GPT-J, which rotates")
    same = {
        "transformer.wte": "embed",
        f"{theirs}.ln_1": f"{ours}.pre",
        **{f"{theirs}.attn.{x}_proj": f"{ours}.mix.mixer.{x}" for x in ("v", "out")},
        f"{theirs}.mlp.fc_in": f"{ours}.ffn.mixer.up",
        f"{theirs}.mlp.fc_out": f"{ours}.ffn.mixer.down",
        "transformer.ln_f": "norm",
        "lm_head": "head",
    }
    return [*named(same), *named({f"{theirs}.attn.{x}_proj": f"{ours}.mix.mixer.{x}" for x in "qk"}, reordered)]


FAMILY = Family(
    name="gptj",
    model_types=("gptj",),
    presets=PRESETS,
    read=read,
    write=write,
    rules=rules,
    prefix="transformer.",
    ignored=re.compile(r"transformer\.h\.\d+\.attn\.(bias|masked_bias|embed_positions)"),
)
