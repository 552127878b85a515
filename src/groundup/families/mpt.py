"""MPT: pre-norm layers, ALiBi, GELU, no biases, not even in norms, tied embeddings.

Source: MosaicML NLP Team 2023 (Introducing MPT-7B; MPT-30B), with the keys of their llm-foundry. Its training
recipes of other sizes, with learnt positions and biases, are GPT-2s: see groundup.families.gpt2. Left out is what
only earlier experiments use (qk_ln).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from groundup.errors import SpecError
from groundup.families.family import Family, Keys, clipped, head_width, limit_of
from groundup.families.names import read_named, write_named
from groundup.mixers.attention import Attention
from groundup.mixers.mlp import MLP
from groundup.model.decoder import Decoder
from groundup.model.heads import Tied, Untied
from groundup.model.layer import Layer
from groundup.model.residual import Residual
from groundup.parts.init import ScaledNormal
from groundup.parts.norm import LayerNorm
from groundup.parts.position import ALiBi
from groundup.parts.score import Scaled
from groundup.rules import Rule, joined, named, split


def mpt(
    *,
    width: int,
    layers: int,
    heads: int,
    vocab: int = 50432,
    context: int = 2048,
    steepest: float = 8.0,
    scale: float | None = None,
    limit: float | None = None,
    eps: float = 1e-5,
    tied: bool = True,
    deviation: float = 0.02,
) -> Decoder:
    """Returns the spec of an MPT of these sizes.

    Args:
        width: the width of the residual stream.
        layers: the number of layers.
        heads: attention heads, each ``width / heads`` wide.
        vocab: the number of token ids.
        context: the longest sequence that was trained.
        steepest: of ALiBi's slopes.
        scale: of the scores; None means the head width to the power -1/2.
        limit: beyond which queries, keys and values are cut off; None means that they are not.
        eps: of the norms.
        tied: whether the head reads the token embedding.
        deviation: of the first weights.

    Raises:
        SpecError: ``heads`` does not divide ``width``.
    """
    norm = LayerNorm(eps=eps, bias=False)
    attention = Attention(
        heads=heads,
        kv_heads=heads,
        head_width=head_width(width, heads),
        position=ALiBi(steepest=steepest),
        score=Scaled(scale=scale),
    )
    attention = clipped(attention, limit)
    layer = Layer(mix=Residual(attention, pre=norm), ffn=Residual(MLP(hidden=4 * width), pre=norm))
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
    "mpt-7b": partial(mpt, width=4096, layers=32, heads=32),
    "mpt-30b": partial(mpt, width=7168, layers=48, heads=64, context=8192),
}


NAMES = {
    "width": ("d_model", "hidden_size", 2048),
    "layers": ("n_layers", "num_hidden_layers", 24),
    "heads": ("n_heads", "num_attention_heads", 16),
    "vocab": ("vocab_size", 50368),
    "context": ("max_seq_len", 2048),
    "eps": ("layer_norm_epsilon", 1e-5),
    "tied": ("tie_word_embeddings", True),
    "deviation": ("initializer_range", 0.02),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of an MPT configuration."""
    keys.only(no_bias=True, expansion_ratio=4)
    keys.among("norm_type", "low_precision_layernorm", "layernorm")
    keys.only(logit_scale=None, embedding_fraction=1.0, resid_pdrop=0.0, emb_pdrop=0.0)
    keys.among("learned_pos_emb", True, False)  # with ALiBi, there are none either way
    # How weights start, and what its trainer needs besides.
    keys.skip("init_config", "init_device", "tokenizer_name", "verbose")
    return mpt(**_read_attention(keys), **read_named(keys, NAMES))


def _read_attention(keys: Keys) -> dict[str, Any]:
    """Returns what attn_config says, as `mpt` takes it."""
    given = keys.take("attn_config", default={})
    if not isinstance(given, Mapping):
        raise SpecError(f"the configuration's attn_config is {given!r}; expected a mapping with alibi")
    attention = Keys(given, family=f"{keys.family} (its attn_config)")
    attention.only(alibi=True, attn_type="multihead_attention", attn_pdrop=0.0)
    attention.only(qk_ln=False, prefix_lm=False, attn_uses_sequence_id=False)
    attention.take("attn_impl", default="torch")  # which kernel, no more
    said = {
        "steepest": attention.positive("alibi_bias_max", default=8.0),
        "scale": attention.positive("softmax_scale", default=None),
        "limit": attention.positive("clip_qkv", default=None),
    }
    attention.done()
    return said


def write(spec: Decoder) -> dict[str, Any] | None:
    """Returns the configuration of an MPT spec, whose slopes are transformers' own: it does not read alibi_bias_max."""
    match spec:
        case Decoder(
            layers=(Layer(mix=Residual(mixer=Attention(position=ALiBi(steepest=8.0), score=score) as attention)), *_),
            norm=LayerNorm(),
        ):
            inside = {"alibi": True, "softmax_scale": score.scale, "clip_qkv": limit_of(attention)}
            return write_named(spec, NAMES, architectures=["MptForCausalLM"], attn_config=inside)
    return None


def rules(spec: Decoder) -> list[Rule]:
    """Returns the weight rules; q, k and v are stored as one."""
    theirs, ours = "transformer.blocks.{l}", "layers.{l}"
    same = {
        "transformer.wte": "embed",
        f"{theirs}.norm_1": f"{ours}.mix.pre",
        f"{theirs}.attn.out_proj": f"{ours}.mix.mixer.out",
        f"{theirs}.norm_2": f"{ours}.ffn.pre",
        f"{theirs}.ffn.up_proj": f"{ours}.ffn.mixer.up",
        f"{theirs}.ffn.down_proj": f"{ours}.ffn.mixer.down",
        "transformer.norm_f": "norm",
        "lm_head": "head",
    }
    return [*named(same), *joined(f"{theirs}.attn.Wqkv", f"{ours}.mix.mixer", "qkv", split(3))]


FAMILY = Family(
    name="mpt", model_types=("mpt",), presets=PRESETS, read=read, write=write, rules=rules, prefix="transformer."
)
