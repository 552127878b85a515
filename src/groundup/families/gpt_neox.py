"""GPT-NeoX and Pythia: parallel layers with a norm for each part, partial rotation, GELU, biases, an untied head.

Sources: Black et al. 2022 (GPT-NeoX-20B, arXiv:2204.06745), section 2; Biderman et al. 2023 (Pythia,
arXiv:2304.01373), table 1. The sizes differ in what the vocabulary is padded to. GPT-NeoX-20B's published
configuration computes its GELU by a tanh.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from groundup.families.family import Family, Keys, attention_of, head_width
from groundup.families.llama import read_rope, write_rope
from groundup.families.names import read_named, write_named
from groundup.mixers.attention import Attention
from groundup.mixers.mlp import MLP
from groundup.model.decoder import Decoder
from groundup.model.heads import Tied, Untied
from groundup.model.layer import Layer, LayerSpec, Parallel
from groundup.model.residual import Residual
from groundup.parts.embed import Embed
from groundup.parts.init import ScaledNormal
from groundup.parts.norm import LayerNorm
from groundup.parts.position import RoPE
from groundup.rules import Rule, joined, named, split_heads


def gpt_neox(
    *,
    width: int,
    layers: int,
    heads: int,
    hidden: int | None = None,
    vocab: int = 50304,
    context: int = 2048,
    position: RoPE = RoPE(fraction=0.25),  # noqa: B008 - a spec is a value
    act: str = "gelu",
    eps: float = 1e-5,
    bias: bool = True,
    parallel: bool = True,
    tied: bool = False,
    deviation: float = 0.02,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
) -> Decoder:
    """Returns the spec of a GPT-NeoX of these sizes.

    Args:
        width: the width of the residual stream.
        layers: the number of layers.
        heads: attention heads, each ``width / heads`` wide.
        hidden: the width inside the feed-forward part; None means four times ``width``.
        vocab: the number of token ids.
        context: the longest sequence.
        position: the rotation of queries and keys.
        act: the activation.
        eps: of the norms.
        bias: whether the maps of attention have biases.
        parallel: whether both parts of a layer read the same stream.
        tied: whether the head reads the token embedding.
        deviation: of the first weights.
        dropout: of the embeddings and of what layers add to the stream.
        attention_dropout: of attention weights.

    Raises:
        SpecError: ``heads`` does not divide ``width``.
    """
    norm = LayerNorm(eps=eps)
    attention = Attention(
        heads=heads,
        kv_heads=heads,
        head_width=head_width(width, heads),
        position=position,
        bias=bias,
        out_bias=bias,
        dropout=attention_dropout,
    )
    mlp = MLP(hidden=hidden or 4 * width, act=act, bias=True)
    layer = (Parallel if parallel else Layer)(
        mix=Residual(attention, pre=norm, dropout=dropout), ffn=Residual(mlp, pre=norm, dropout=dropout)
    )
    return Decoder(
        width=width,
        vocab=vocab,
        context=context,
        layers=(layer,) * layers,
        embed=Embed(dropout=dropout),
        norm=norm,
        head=Tied() if tied else Untied(),
        init=ScaledNormal(deviation=deviation),
    )


PRESETS = {
    "gpt-neox-20b": partial(gpt_neox, width=6144, layers=44, heads=64, vocab=50432, act="gelu_tanh"),
    "pythia-14m": partial(gpt_neox, width=128, layers=6, heads=4),
    "pythia-31m": partial(gpt_neox, width=256, layers=6, heads=8),
    "pythia-70m": partial(gpt_neox, width=512, layers=6, heads=8),
    "pythia-160m": partial(gpt_neox, width=768, layers=12, heads=12),
    "pythia-410m": partial(gpt_neox, width=1024, layers=24, heads=16),
    "pythia-1b": partial(gpt_neox, width=2048, layers=16, heads=8),
    "pythia-1.4b": partial(gpt_neox, width=2048, layers=24, heads=16),
    "pythia-2.8b": partial(gpt_neox, width=2560, layers=32, heads=32),
    "pythia-6.9b": partial(gpt_neox, width=4096, layers=32, heads=32, vocab=50432),
    "pythia-12b": partial(gpt_neox, width=5120, layers=36, heads=40, vocab=50688),
}


NAMES = {
    "width": ("hidden_size", 6144),
    "layers": ("num_hidden_layers", 44),
    "heads": ("num_attention_heads", 64),
    "hidden": ("intermediate_size", 24576),
    "vocab": ("vocab_size", 50432),
    "context": ("max_position_embeddings", 2048),
    "act": ("hidden_act", "gelu"),
    "eps": ("layer_norm_eps", 1e-5),
    "bias": ("attention_bias", True),
    "tied": ("tie_word_embeddings", False),
    "deviation": ("initializer_range", 0.02),
    "dropout": ("hidden_dropout", "hidden_dropout_prob", 0.0),
    "attention_dropout": ("attention_dropout", "attention_probs_dropout_prob", 0.0),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of a GPT-NeoX configuration."""
    keys.skip("classifier_dropout")  # of a head that is not part of the language model
    said = read_named(keys, NAMES)
    _check_names(keys)
    return gpt_neox(
        position=read_rope(keys, context=said["context"], fraction=0.25),
        parallel=keys.flag("use_parallel_residual", default=True),
        **said,
    )


def _check_names(keys: Keys) -> None:
    """Refuses LLaMA's names of the rotation where they say what transformers, which does not read them here, does not.

    Raises:
        SpecError: one of them does.
    """
    given = keys.config.get("rope_parameters") or keys.config.get("rope_scaling")
    for name, read, usual in (("rope_theta", "rotary_emb_base", 10_000), ("partial_rotary_factor", "rotary_pct", 0.25)):
        if not isinstance(given, Mapping) or given.get(name) is None:
            keys.only(**{name: keys.take(read, default=usual)})


def write(spec: Decoder) -> dict[str, Any] | None:
    """Returns the configuration of a GPT-NeoX spec."""
    match spec:
        case Decoder(
            layers=(LayerSpec(mix=Residual(mixer=Attention(position=RoPE() as position))) as layer, *_),
            norm=LayerNorm(),
        ):
            return write_named(
                spec,
                NAMES,
                architectures=["GPTNeoXForCausalLM"],
                rope_parameters=write_rope(position) | {"partial_rotary_factor": position.fraction},
                use_parallel_residual=isinstance(layer, Parallel),
            )
    return None


def rules(spec: Decoder) -> list[Rule]:
    """Returns the weight rules; q, k and v are stored as one, head by head."""
    theirs, ours = "gpt_neox.layers.{l}", "layers.{l}"
    by_heads = split_heads(attention_of(spec).heads)
    same = {
        "gpt_neox.embed_in": "embed",
        f"{theirs}.input_layernorm": f"{ours}.mix.pre",
        f"{theirs}.attention.dense": f"{ours}.mix.mixer.out",
        f"{theirs}.post_attention_layernorm": f"{ours}.ffn.pre",
        f"{theirs}.mlp.dense_h_to_4h": f"{ours}.ffn.mixer.up",
        f"{theirs}.mlp.dense_4h_to_h": f"{ours}.ffn.mixer.down",
        "gpt_neox.final_layer_norm": "norm",
        "lm_head": "head",
    }
    return [*named(same), *joined(f"{theirs}.attention.query_key_value", f"{ours}.mix.mixer", "qkv", by_heads)]


FAMILY = Family(
    name="gpt_neox",
    model_types=("gpt_neox",),
    presets=PRESETS,
    read=read,
    write=write,
    rules=rules,
    prefix="gpt_neox.",
    ignored=re.compile(r"gpt_neox\.layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)"),
    renamed={r"^embed_out\.": "lm_head."},
)
