"""Falcon: parallel layers, rotation, GELU, no biases, tied embeddings; one head of keys, or some.

Source: Almazrouei et al. 2023 (arXiv:2311.16867), section 4. The 7B model shares one norm among the parts of a layer
and one head of keys among all queries; 40B and 180B norm each part and have eight heads of keys. The falcon-rw models
have ALiBi, biases and one part after the other (Penedo et al. 2023, arXiv:2306.01116, appendix).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from groundup.errors import SpecError
from groundup.families.family import Family, Keys, attention_of, head_width
from groundup.families.llama import read_rope, write_rope
from groundup.families.names import read_named, write_named
from groundup.mixers.attention import Attention
from groundup.mixers.mlp import MLP
from groundup.model.decoder import Decoder
from groundup.model.heads import Tied, Untied
from groundup.model.layer import Layer, LayerSpec, Parallel
from groundup.model.residual import Residual
from groundup.parts.init import ScaledNormal
from groundup.parts.norm import LayerNorm, NoNorm
from groundup.parts.position import RoPE, RoundedALiBi
from groundup.rules import Rule, joined, named, split_heads


def falcon(
    *,
    width: int,
    layers: int,
    heads: int,
    kv_heads: int,
    norms: int = 2,
    parallel: bool = True,
    hidden: int | None = None,
    vocab: int = 65024,
    context: int = 2048,
    position: RoPE | RoundedALiBi = RoPE(),  # noqa: B008 - a spec is a value
    act: str = "gelu",
    eps: float = 1e-5,
    bias: bool = False,
    tied: bool = True,
    deviation: float = 0.02,
) -> Decoder:
    """Returns the spec of a Falcon of these sizes.

    Args:
        width: the width of the residual stream.
        layers: the number of layers.
        heads: heads of queries, each ``width / heads`` wide.
        kv_heads: heads of keys and values.
        norms: in a parallel layer, 2 for one of each part or 1 for one that they share.
        parallel: whether both parts of a layer read the same stream.
        hidden: the width inside the feed-forward part; None means four times ``width``.
        vocab: the number of token ids.
        context: the longest sequence.
        position: how queries and keys learn their places.
        act: the activation.
        eps: of the norms.
        bias: whether maps have biases.
        tied: whether the head reads the token embedding.
        deviation: of the first weights.

    Raises:
        SpecError: ``heads`` does not divide ``width``.
    """
    norm = LayerNorm(eps=eps)
    attention = Attention(
        heads=heads,
        kv_heads=kv_heads,
        head_width=head_width(width, heads),
        position=position,
        bias=bias,
        out_bias=bias,
    )
    shared = parallel and norms == 1
    own = NoNorm() if shared else norm
    parts = {
        "mix": Residual(attention, pre=own),
        "ffn": Residual(MLP(hidden=hidden or 4 * width, act=act, bias=bias), pre=own),
    }
    layer = Parallel(**parts, pre=norm if shared else NoNorm()) if parallel else Layer(**parts)
    return Decoder(
        width=width,
        vocab=vocab,
        context=context,
        layers=(layer,) * layers,
        norm=norm,
        head=Tied() if tied else Untied(),
        init=ScaledNormal(deviation=deviation),
    )


PRESETS = {
    "falcon-7b": partial(falcon, width=4544, layers=32, heads=71, kv_heads=1, norms=1),
    "falcon-40b": partial(falcon, width=8192, layers=60, heads=128, kv_heads=8),
    "falcon-rw-1b": partial(
        falcon,
        width=2048,
        layers=24,
        heads=32,
        kv_heads=32,
        parallel=False,
        vocab=50304,
        position=RoundedALiBi(),
        bias=True,
    ),
    "falcon-180b": partial(falcon, width=14848, layers=80, heads=232, kv_heads=8),
}


NAMES = {
    "width": ("hidden_size", "n_embed", 4544),
    "layers": ("num_hidden_layers", "n_layer", 32),
    "heads": ("num_attention_heads", "n_head", 71),
    "hidden": ("ffn_hidden_size", None),
    "vocab": ("vocab_size", 65024),
    "context": ("max_position_embeddings", 2048),
    "act": ("activation", "gelu"),
    "eps": ("layer_norm_epsilon", 1e-5),
    "bias": ("bias", False),
    "tied": ("tie_word_embeddings", True),
    "deviation": ("initializer_range", 0.02),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of a Falcon configuration."""
    keys.only(hidden_dropout=0.0)  # drops the sum of both parts at once
    keys.only(attention_dropout=0.0)  # drops no attention weights, but some of the stream
    keys.only(apply_residual_connection_post_layernorm=False)
    said = read_named(keys, NAMES)
    heads = said["heads"]
    grouped = keys.flag("new_decoder_architecture", default=False)
    kv_heads = keys.number("num_kv_heads", "n_head_kv", default=heads)
    one = keys.flag("multi_query", default=True)
    parallel = keys.flag("parallel_attn", default=True)
    norms = keys.number("num_ln_in_parallel_attn", default=2 if grouped else 1)
    if norms != 1 and not (grouped and parallel and norms == 2):
        raise SpecError(f"the configuration's num_ln_in_parallel_attn is {norms}, which its other keys have no use for")
    rotation = read_rope(keys, context=said["context"])  # of which nothing is heard where there is ALiBi
    return falcon(
        kv_heads=kv_heads if grouped else 1 if one else heads,
        norms=norms,
        parallel=parallel,
        position=RoundedALiBi() if keys.flag("alibi", default=False) else rotation,
        **said,
    )


def write(spec: Decoder) -> dict[str, Any] | None:
    """Returns the configuration of a Falcon spec."""
    match spec:
        case Decoder(
            layers=(
                LayerSpec(
                    mix=Residual(mixer=Attention(position=RoPE() | RoundedALiBi() as position) as attention)
                ) as layer,
                *_,
            ),
            norm=LayerNorm(),
        ):
            places = {"rope_parameters": write_rope(position)} if isinstance(position, RoPE) else {}
            parallel, shared = isinstance(layer, Parallel), _shared(layer)
            return write_named(
                spec,
                NAMES,
                architectures=["FalconForCausalLM"],
                num_kv_heads=attention.kv_heads,
                new_decoder_architecture=(parallel and not shared) or attention.kv_heads not in (1, attention.heads),
                multi_query=attention.kv_heads == 1,
                parallel_attn=parallel,
                num_ln_in_parallel_attn=2 if parallel and not shared else 1,
                alibi=not places,
                **places,
            )
    return None


def _shared(layer: LayerSpec) -> bool:
    match layer:
        case Parallel(pre=LayerNorm()):
            return True
    return False


def rules(spec: Decoder) -> list[Rule]:
    """Returns the weight rules; q, k and v are stored as one, head of keys by head of keys."""
    theirs, ours = "transformer.h.{l}", "layers.{l}"
    attention, layer = attention_of(spec), spec.layers[0]
    by_heads = split_heads(attention.kv_heads, queries=attention.heads // attention.kv_heads)
    if _shared(layer):
        norms = {f"{theirs}.input_layernorm": f"{ours}.pre"}
    elif isinstance(layer, Parallel):
        norms = {f"{theirs}.ln_attn": f"{ours}.mix.pre", f"{theirs}.ln_mlp": f"{ours}.ffn.pre"}
    else:
        second = f"{theirs}.post_attention_layernorm"
        norms = {f"{theirs}.input_layernorm": f"{ours}.mix.pre", second: f"{ours}.ffn.pre"}
    same = {
        "transformer.word_embeddings": "embed",
        **norms,
        f"{theirs}.self_attention.dense": f"{ours}.mix.mixer.out",
        f"{theirs}.mlp.dense_h_to_4h": f"{ours}.ffn.mixer.up",
        f"{theirs}.mlp.dense_4h_to_h": f"{ours}.ffn.mixer.down",
        "transformer.ln_f": "norm",
        "lm_head": "head",
    }
    return [*named(same), *joined(f"{theirs}.self_attention.query_key_value", f"{ours}.mix.mixer", "qkv", by_heads)]


FAMILY = Family(
    name="falcon", model_types=("falcon",), presets=PRESETS, read=read, write=write, rules=rules, prefix="transformer."
)
