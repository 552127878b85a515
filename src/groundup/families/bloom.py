"""BLOOM: pre-norm layers, ALiBi, a norm of the embeddings, tanh GELU, biases throughout, tied embeddings.

Source: Le Scao et al. 2022 (arXiv:2211.05100), sections 3.2.2 and 3.3 and table 3. The vocabulary of 250,680 is
padded to 250,880.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from groundup.families.family import Family, Keys, attention_of, head_width
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
from groundup.parts.position import ALiBi
from groundup.rules import Rule, joined, named, split_heads


def bloom(
    *,
    width: int,
    layers: int,
    heads: int,
    vocab: int = 250880,
    context: int = 2048,
    eps: float = 1e-5,
    tied: bool = True,
    deviation: float = 0.02,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
) -> Decoder:
    """Returns the spec of a BLOOM of these sizes.

    Args:
        width: the width of the residual stream.
        layers: the number of layers.
        heads: attention heads, each ``width / heads`` wide.
        vocab: the number of token ids.
        context: the longest sequence that was trained.
        eps: of the norms.
        tied: whether the head reads the token embedding.
        deviation: of the first weights.
        dropout: of what layers add to the stream.
        attention_dropout: of attention weights.

    Raises:
        SpecError: ``heads`` does not divide ``width``.
    """
    norm = LayerNorm(eps=eps)
    attention = Attention(
        heads=heads,
        kv_heads=heads,
        head_width=head_width(width, heads),
        position=ALiBi(),
        bias=True,
        out_bias=True,
        dropout=attention_dropout,
    )
    mlp = MLP(hidden=4 * width, act="gelu_tanh", bias=True)
    layer = Layer(mix=Residual(attention, pre=norm, dropout=dropout), ffn=Residual(mlp, pre=norm, dropout=dropout))
    return Decoder(
        width=width,
        vocab=vocab,
        context=context,
        layers=(layer,) * layers,
        embed=Embed(norm=norm),
        norm=norm,
        head=Tied() if tied else Untied(),
        init=ScaledNormal(deviation=deviation),
    )


PRESETS = {
    "bloom-560m": partial(bloom, width=1024, layers=24, heads=16),
    "bloom-1b1": partial(bloom, width=1536, layers=24, heads=16),
    "bloom-1b7": partial(bloom, width=2048, layers=24, heads=16),
    "bloom-3b": partial(bloom, width=2560, layers=30, heads=32),
    "bloom-7b1": partial(bloom, width=4096, layers=30, heads=32),
    "bloom-176b": partial(bloom, width=14336, layers=70, heads=112),
}


NAMES = {
    "width": ("hidden_size", "n_embed", 64),
    "layers": ("n_layer", "num_hidden_layers", 2),
    "heads": ("n_head", "num_attention_heads", 8),
    "vocab": ("vocab_size", 250880),
    "context": ("seq_length", 2048),
    "eps": ("layer_norm_epsilon", 1e-5),
    "tied": ("tie_word_embeddings", True),
    "deviation": ("initializer_range", 0.02),
    "dropout": ("hidden_dropout", 0.0),
    "attention_dropout": ("attention_dropout", 0.0),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of a BLOOM configuration."""
    keys.only(apply_residual_connection_post_layernorm=False, n_inner=None, skip_bias_add=True, skip_bias_add_qkv=False)
    if keys.number("pretraining_tp", default=1) > 1:  # over how many devices its maps were cut: the order of sums
        keys.only(slow_but_exact=False)  # which would leave out the biases of what was cut
    keys.skip("slow_but_exact", "attention_softmax_in_fp32")  # the precision of sums
    # How its trainer computed the same, and a token.
    keys.skip("bias_dropout_fusion", "masked_softmax_fusion", "offset_alibi", "unk_token_id")
    return bloom(**read_named(keys, NAMES))


def write(spec: Decoder) -> dict[str, Any] | None:
    """Returns the configuration of a BLOOM spec."""
    match spec:
        case Decoder(layers=(Layer(mix=Residual(mixer=Attention(position=ALiBi()))), *_), norm=LayerNorm()):
            return write_named(spec, NAMES, architectures=["BloomForCausalLM"])
    return None


def rules(spec: Decoder) -> list[Rule]:
    """Returns the weight rules; q, k and v are stored as one, head by head."""
    theirs, ours = "transformer.h.{l}", "layers.{l}"
    by_heads = split_heads(attention_of(spec).heads)
    same = {
        "transformer.word_embeddings": "embed",
        "transformer.word_embeddings_layernorm": "embed.norm",
        f"{theirs}.input_layernorm": f"{ours}.mix.pre",
        f"{theirs}.self_attention.dense": f"{ours}.mix.mixer.out",
        f"{theirs}.post_attention_layernorm": f"{ours}.ffn.pre",
        f"{theirs}.mlp.dense_h_to_4h": f"{ours}.ffn.mixer.up",
        f"{theirs}.mlp.dense_4h_to_h": f"{ours}.ffn.mixer.down",
        "transformer.ln_f": "norm",
        "lm_head": "head",
    }
    return [*named(same), *joined(f"{theirs}.self_attention.query_key_value", f"{ours}.mix.mixer", "qkv", by_heads)]


FAMILY = Family(
    name="bloom", model_types=("bloom",), presets=PRESETS, read=read, write=write, rules=rules, prefix="transformer."
)
