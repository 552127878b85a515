"""Phi-1, Phi-1.5 and Phi-2: parallel layers that share one norm, partial rotation, tanh GELU, biases throughout.

Sources: Gunasekar et al. 2023 (phi-1, arXiv:2306.11644), section 2.3; Li et al. 2023 (phi-1.5, arXiv:2309.05463),
section 2.1; Javaheripi and Bubeck 2023 (Phi-2: The surprising power of small language models).
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from groundup.families.family import Family, Keys, head_width
from groundup.families.llama import read_rope, write_rope
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
    embed_dropout: float = 0.0,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
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
        embed_dropout: of the embeddings.
        dropout: of what layers add to the stream.
        attention_dropout: of attention weights.

    Raises:
        SpecError: ``heads`` does not divide ``width``.
    """
    norm = LayerNorm(eps=eps)
    attention = Attention(
        heads=heads,
        kv_heads=kv_heads or heads,
        head_width=head_width(width, heads),
        position=position,
        norm=norm if normed else NoNorm(),
        bias=True,
        out_bias=True,
        dropout=attention_dropout,
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


PRESETS = {
    "phi-1": partial(phi, width=2048, layers=24, heads=32),
    "phi-1.5": partial(phi, width=2048, layers=24, heads=32),
    "phi-2": partial(phi, width=2560, layers=32, heads=32, position=RoPE(fraction=0.4)),
}


NAMES = {
    "width": ("hidden_size", 2048),
    "layers": ("num_hidden_layers", 24),
    "heads": ("num_attention_heads", 32),
    "kv_heads": ("num_key_value_heads", None),
    "hidden": ("intermediate_size", 8192),
    "vocab": ("vocab_size", 51200),
    "context": ("max_position_embeddings", 2048),
    "act": ("hidden_act", "gelu_new"),
    "eps": ("layer_norm_eps", 1e-5),
    "tied": ("tie_word_embeddings", False),
    "deviation": ("initializer_range", 0.02),
    "embed_dropout": ("embd_pdrop", 0.0),
    "dropout": ("resid_pdrop", 0.0),
    "attention_dropout": ("attention_dropout", 0.0),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of a Phi configuration."""
    said = read_named(keys, NAMES)
    return phi(
        position=read_rope(keys, context=said["context"], fraction=0.5),
        normed=keys.flag("qk_layernorm", default=False),
        **said,
    )


def write(spec: Decoder) -> dict[str, Any] | None:
    """Returns the configuration of a Phi spec."""
    match spec:
        case Decoder(
            layers=(Parallel(mix=Residual(mixer=Attention(position=RoPE() as position) as attention)), *_),
            norm=LayerNorm(),
        ):
            return write_named(
                spec,
                NAMES,
                architectures=["PhiForCausalLM"],
                rope_parameters=write_rope(position) | {"partial_rotary_factor": position.fraction},
                qk_layernorm=attention.norm != NoNorm(),
            )
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
