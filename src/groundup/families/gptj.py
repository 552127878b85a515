"""GPT-J: parallel layers that share one norm, partial rotation, tanh GELU, an untied head with a bias.

Source: Wang and Komatsuzaki 2021 (GPT-J-6B: A 6 Billion Parameter Autoregressive Language Model). Its rotation turns
neighbours, and ours halves of a head: the weight rules reorder queries and keys, which changes no product of them.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from groundup.errors import SpecError
from groundup.families.family import ACTS, THEIR_ACTS, Family, Keys, attention_of, head_width
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
    dropout: tuple[float, float, float] = (0.0, 0.0, 0.0),
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
        dropout: of the embeddings, of what layers add to the stream, and of attention weights.

    Raises:
        SpecError: ``heads`` does not divide ``width``.
    """
    norm, each = LayerNorm(eps=eps), head_width(width, heads)
    of_embeddings, of_stream, of_attention = dropout
    attention = Attention(
        heads=heads, kv_heads=heads, head_width=each, position=RoPE(fraction=turned / each), dropout=of_attention
    )
    layer = Parallel(
        mix=Residual(attention, pre=NoNorm(), dropout=of_stream),
        ffn=Residual(MLP(hidden=hidden or 4 * width, act=act, bias=True), pre=NoNorm(), dropout=of_stream),
        pre=norm,
    )
    return Decoder(
        width=width,
        vocab=vocab,
        context=context,
        layers=(layer,) * layers,
        embed=Embed(dropout=of_embeddings),
        norm=norm,
        head=(Tied if tied else Untied)(bias=True),
        init=ScaledNormal(deviation=deviation),
    )


PRESETS = {"gpt-j-6b": partial(gptj, width=4096, layers=28, heads=16)}


def read(keys: Keys) -> Decoder:
    """Returns the spec of a GPT-J configuration."""
    keys.only("rotary", True)
    keys.only("scale_attn_weights", True)
    for name in ("type", "use_proj", "activation", "proj_to_labels", "first_dropout"):
        keys.take(f"summary_{name}", default=None)  # a classification head that is not part of the language model
    return gptj(
        width=keys.number("n_embd", "hidden_size", default=4096),
        layers=keys.layers("n_layer", "num_hidden_layers", default=28),
        heads=keys.number("n_head", "num_attention_heads", default=16),
        turned=keys.number("rotary_dim", default=64),
        hidden=keys.number("n_inner", default=None),
        vocab=keys.number("vocab_size", default=50400),
        context=keys.number("n_positions", "max_position_embeddings", default=2048),
        act=keys.choice("activation_function", known=ACTS, default="gelu_new"),
        eps=keys.number("layer_norm_epsilon", default=1e-5, whole=False),
        tied=keys.flag("tie_word_embeddings", default=False),
        deviation=keys.number("initializer_range", default=0.02, whole=False),
        dropout=tuple(keys.number(f"{name}_pdrop", default=0.0, whole=False) for name in ("embd", "resid", "attn")),
    )


def write(spec: Decoder) -> dict[str, Any] | None:
    """Returns the configuration of a GPT-J spec."""
    match spec:
        case Decoder(
            layers=(
                Parallel(
                    mix=Residual(mixer=Attention(position=RoPE() as position) as attention) as mix,
                    ffn=Residual(mixer=MLP() as mlp),
                ),
                *_,
            ),
            norm=LayerNorm(eps=eps),
            init=ScaledNormal(deviation=deviation),
        ) if mlp.act in THEIR_ACTS:
            return {
                "architectures": ["GPTJForCausalLM"],
                "vocab_size": spec.vocab,
                "n_positions": spec.context,
                "n_embd": spec.width,
                "n_layer": len(spec.layers),
                "n_head": attention.heads,
                "rotary_dim": int(attention.head_width * position.fraction),
                "n_inner": mlp.hidden,
                "activation_function": (THEIR_ACTS | {"gelu_tanh": "gelu_new"})[mlp.act],  # its published name
                "layer_norm_epsilon": eps,
                "tie_word_embeddings": isinstance(spec.head, Tied),
                "initializer_range": deviation,
                "embd_pdrop": spec.embed.dropout,
                "resid_pdrop": mix.dropout,
                "attn_pdrop": attention.dropout,
            }
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
