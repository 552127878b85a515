"""Phi-1, Phi-1.5 and Phi-2: parallel layers that share one norm, partial rotation, tanh GELU, biases throughout.

Sources: Gunasekar et al. 2023 (phi-1, arXiv:2306.11644), section 2.3; Li et al. 2023 (phi-1.5, arXiv:2309.05463),
section 2.1; Javaheripi and Bubeck 2023 (Phi-2: The surprising power of small language models).
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from groundup.families.family import ACTS, THEIR_ACTS, Family, Keys, head_width
from groundup.families.llama import read_rope, write_rope
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
from groundup.rules import Rule, named


def phi(
    *,
    width: int,
    layers: int,
    heads: int,
    kv_heads: int | None = None,
    hidden: int | None = None,
    vocab: int = 51200,
    context: int = 2048,
    position: RoPE = RoPE(fraction=0.5),  # noqa: B008 - a spec is a value
    act: str = "gelu_tanh",
    eps: float = 1e-5,
    normed: bool = False,
    tied: bool = False,
    deviation: float = 0.02,
    dropout: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Decoder:
    """Returns the spec of a Phi of these sizes.

    Args:
        width: the width of the residual stream.
        layers: the number of layers.
        heads: heads of queries, each ``width / heads`` wide.
        kv_heads: heads of keys and values; None means as many as ``heads``.
        hidden: the width inside the feed-forward part; None means four times ``width``.
        vocab: the number of token ids.
        context: the longest sequence.
        position: the rotation of queries and keys.
        act: the activation.
        eps: of the norms.
        normed: whether each head's queries and keys are normed.
        tied: whether the head reads the token embedding.
        deviation: of the first weights.
        dropout: of the embeddings, of what layers add to the stream, and of attention weights.

    Raises:
        SpecError: ``heads`` does not divide ``width``.
    """
    norm = LayerNorm(eps=eps)
    of_embeddings, of_stream, of_attention = dropout
    attention = Attention(
        heads=heads,
        kv_heads=kv_heads or heads,
        head_width=head_width(width, heads),
        position=position,
        norm=norm if normed else NoNorm(),
        bias=True,
        out_bias=True,
        dropout=of_attention,
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


PRESETS = {
    "phi-1": partial(phi, width=2048, layers=24, heads=32),
    "phi-1.5": partial(phi, width=2048, layers=24, heads=32),
    "phi-2": partial(phi, width=2560, layers=32, heads=32, position=RoPE(fraction=0.4)),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of a Phi configuration."""
    context = keys.number("max_position_embeddings", default=2048)
    names = ("embd_pdrop", "resid_pdrop", "attention_dropout")
    return phi(
        width=keys.number("hidden_size", default=2048),
        layers=keys.layers("num_hidden_layers", default=24),
        heads=keys.number("num_attention_heads", default=32),
        kv_heads=keys.number("num_key_value_heads", default=None),
        hidden=keys.number("intermediate_size", default=8192),
        vocab=keys.number("vocab_size", default=51200),
        context=context,
        position=read_rope(keys, context=context, fraction=0.5),
        act=keys.choice("hidden_act", known=ACTS, default="gelu_new"),
        eps=keys.number("layer_norm_eps", default=1e-5, whole=False),
        normed=keys.flag("qk_layernorm", default=False),
        tied=keys.flag("tie_word_embeddings", default=False),
        deviation=keys.number("initializer_range", default=0.02, whole=False),
        dropout=tuple(keys.number(name, default=0.0, whole=False) for name in names),
    )


def write(spec: Decoder) -> dict[str, Any] | None:
    """Returns the configuration of a Phi spec."""
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
                "architectures": ["PhiForCausalLM"],
                "vocab_size": spec.vocab,
                "hidden_size": spec.width,
                "intermediate_size": mlp.hidden,
                "num_hidden_layers": len(spec.layers),
                "num_attention_heads": attention.heads,
                "num_key_value_heads": attention.kv_heads,
                "hidden_act": (THEIR_ACTS | {"gelu_tanh": "gelu_new"})[mlp.act],  # its published name
                "max_position_embeddings": spec.context,
                "layer_norm_eps": eps,
                "rope_parameters": write_rope(position) | {"partial_rotary_factor": position.fraction},
                "qk_layernorm": attention.norm != NoNorm(),
                "tie_word_embeddings": isinstance(spec.head, Tied),
                "initializer_range": deviation,
                "embd_pdrop": spec.embed.dropout,
                "resid_pdrop": mix.dropout,
                "attention_dropout": attention.dropout,
            }
    return None


def rules(spec: Decoder) -> list[Rule]:
    """Returns the weight rules: names only, for theirs and ours are laid out alike."""
    theirs, ours = "model.layers.{l}", "layers.{l}"
    return named(
        {
            "model.embed_tokens": "embed",
            f"{theirs}.input_layernorm": f"{ours}.pre",
            **{f"{theirs}.self_attn.{x}_proj": f"{ours}.mix.mixer.{x}" for x in "qkv"},
            **{f"{theirs}.self_attn.{x}_layernorm": f"{ours}.mix.mixer.{x}_norm" for x in "qk"},
            f"{theirs}.self_attn.dense": f"{ours}.mix.mixer.out",
            f"{theirs}.mlp.fc1": f"{ours}.ffn.mixer.up",
            f"{theirs}.mlp.fc2": f"{ours}.ffn.mixer.down",
            "model.final_layernorm": "norm",
            "lm_head": "head",
        }
    )


FAMILY = Family(
    name="phi",
    model_types=("phi",),
    presets=PRESETS,
    read=read,
    write=write,
    rules=rules,
    prefix="model.",
    ignored=re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq"),
)
