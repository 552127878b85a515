"""OLMo Hybrid: three layers of Gated DeltaNet before each layer of attention.

Attention norms its output and, across heads, its queries and keys, as OLMo 2 does (arXiv:2501.00656, section 2.1);
Gated DeltaNet (Yang et al. 2024, arXiv:2412.06464) norms its input. Sizes are the defaults of transformers'
OlmoHybridConfig, which names the checkpoint allenai/Olmo-Hybrid-7B; that one has no rotation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from groundup.errors import SpecError
from groundup.families.family import Family, Keys
from groundup.families.linear_attention import gated_delta
from groundup.families.llama import read_rope, write_rope
from groundup.mixers.attention import Attention
from groundup.mixers.linear_attention import LinearAttention
from groundup.mixers.mlp import GatedMLP
from groundup.model.decoder import Decoder
from groundup.model.heads import Tied, Untied
from groundup.model.layer import Layer, LayerSpec
from groundup.model.residual import Residual
from groundup.parts.decay import HeadDecay
from groundup.parts.init import ScaledNormal
from groundup.parts.norm import AcrossHeads, NoNorm, RMSNorm
from groundup.parts.position import NoPosition, RoPE
from groundup.parts.update import Delta
from groundup.rules import QKVO, Op, Rule, named, rule

LINEAR, FAR = "linear_attention", "full_attention"


def olmo_hybrid(
    attention: Attention,
    linear: LinearAttention,
    *,
    width: int,
    hidden: int,
    kinds: Sequence[str],
    vocab: int = 100_352,
    context: int = 65_536,
    eps: float = 1e-6,
    tied: bool = False,
    deviation: float = 0.02,
) -> Decoder:
    """Returns the spec of an OLMo Hybrid.

    Args:
        attention: the mixer of layers of attention; its norm is set here.
        linear: the mixer of the other layers.
        width: the width of the residual stream.
        hidden: the width inside the feed-forward parts.
        kinds: which of the two each layer has, `LINEAR` or `FAR`.
        vocab: the number of token ids.
        context: the longest sequence.
        eps: of the norms of the stream, of queries and of keys.
        tied: whether the head reads the token embedding.
        deviation: of the first weights.
    """
    norm, mlp = RMSNorm(eps=eps), GatedMLP(hidden=hidden)
    attention = attention.replace(norm=AcrossHeads(norm))
    far = Layer(mix=Residual(attention, pre=NoNorm(), post=norm), ffn=Residual(mlp, pre=NoNorm(), post=norm))
    near = Layer(mix=Residual(linear, pre=norm), ffn=Residual(mlp, pre=norm))
    return Decoder(
        width=width,
        vocab=vocab,
        context=context,
        layers=tuple(near if kind == LINEAR else far for kind in kinds),
        norm=norm,
        head=Tied() if tied else Untied(),
        init=ScaledNormal(deviation=deviation),
    )


PRESETS = {
    "olmo-hybrid-7b": partial(
        olmo_hybrid,
        Attention(heads=30, kv_heads=30, head_width=128, position=NoPosition()),
        gated_delta(heads=30, key_width=96, value_width=192, most=2.0),
        width=3840,
        hidden=11008,
        kinds=(LINEAR, LINEAR, LINEAR, FAR) * 8,
    ),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of an OLMo Hybrid configuration.

    Raises:
        SpecError: ``layer_types`` has another length, other words, or only one of the two.
    """
    keys.only(hidden_act="silu")
    keys.skip("linear_dt_init_floor")  # of first weights, below the least step by default
    width, layers = keys.number("hidden_size", default=3840), keys.layers("num_hidden_layers", default=32)
    usual = [FAR if i % 4 == 3 or i == layers - 1 < 3 else LINEAR for i in range(layers)]
    kinds = read_kinds(keys, usual)
    if len(set(kinds)) == 1:
        raise SpecError(f"the configuration's layer_types are all {kinds[0]}; OLMo Hybrid has {LINEAR} and {FAR}")
    context = keys.number("max_position_embeddings", default=65_536)
    attention = _read_attention(keys, width=width, context=context)
    return olmo_hybrid(
        attention,
        _read_linear(keys, width=width, heads=attention.heads),
        width=width,
        hidden=keys.number("intermediate_size", default=11008),
        kinds=kinds,
        vocab=keys.number("vocab_size", default=100_352),
        context=context,
        eps=keys.number("rms_norm_eps", default=1e-6, whole=False),
        tied=keys.flag("tie_word_embeddings", default=False),
        deviation=keys.number("initializer_range", default=0.02, whole=False),
    )


def read_kinds(keys: Keys, usual: list[str]) -> list[str]:
    """Returns ``layer_types``.

    Raises:
        SpecError: it has another length or other words.
    """
    kinds = keys.take("layer_types", default=usual)
    if not isinstance(kinds, list) or len(kinds) != len(usual) or any(kind not in (LINEAR, FAR) for kind in kinds):
        raise SpecError(f"the configuration's layer_types are {kinds!r}; expected {len(usual)} of {LINEAR} and {FAR}")
    return kinds


def _read_attention(keys: Keys, *, width: int, context: int) -> Attention:
    heads = keys.number("num_attention_heads", default=30)
    bias, rope = keys.flag("attention_bias", default=False), keys.take("rope_parameters", default={})
    theta = [said["rope_theta"] for said in (rope, keys.config) if isinstance(said, Mapping) and "rope_theta" in said]
    still = theta[:1] == [None]
    if still:
        keys.skip("rope_theta", "rope_scaling")
    return Attention(
        heads=heads,
        kv_heads=keys.number("num_key_value_heads", default=heads),
        head_width=keys.number("head_dim", default=width // heads),
        position=NoPosition() if still else read_rope(keys, context=context),
        bias=bias,
        out_bias=bias,
        dropout=keys.number("attention_dropout", default=0.0, whole=False),
    )


def _read_linear(keys: Keys, *, width: int, heads: int) -> LinearAttention:
    key_heads = keys.number("linear_num_key_heads", default=heads)
    key_width = keys.number("linear_key_head_dim", default=3 * width // (4 * key_heads))
    rates = keys.number("linear_a_log_min", default=0.0, whole=False), keys.positive("linear_a_log_max", default=16.0)
    steps = keys.positive("linear_dt_min", default=0.001), keys.positive("linear_dt_max", default=0.1)
    return gated_delta(
        heads=keys.number("linear_num_value_heads", default=heads),
        key_heads=key_heads,
        key_width=key_width,
        value_width=keys.number("linear_value_head_dim", default=2 * key_width),
        most=2.0 if keys.flag("linear_allow_neg_eigval", default=True) else 1.0,
        decay=HeadDecay(rates=rates, steps=steps),
        conv=keys.number("linear_conv_kernel_dim", default=4),
    )


def write(spec: Decoder) -> dict[str, Any] | None:
    """Returns the configuration of an OLMo Hybrid spec."""
    kinds = [kind_of(layer) for layer in spec.layers]
    if not {LINEAR, FAR} <= set(kinds):
        return None
    near, far = spec.layers[kinds.index(LINEAR)], spec.layers[kinds.index(FAR)]
    match spec, near, far:
        case (
            Decoder(norm=RMSNorm(eps=eps), init=ScaledNormal(deviation=deviation)),
            Layer(
                mix=Residual(
                    mixer=LinearAttention(decay=HeadDecay() as decay, update=Delta(most=most), conv=conv) as linear
                )
            ),
            Layer(
                mix=Residual(mixer=Attention(position=RoPE() | NoPosition() as position) as attention),
                ffn=Residual(mixer=GatedMLP() as mlp),
            ),
        ):
            still = {"rope_theta": None, "rope_type": "default"}
            return {
                "architectures": ["OlmoHybridForCausalLM"],
                "vocab_size": spec.vocab,
                "hidden_size": spec.width,
                "intermediate_size": mlp.hidden,
                "num_hidden_layers": len(spec.layers),
                "layer_types": kinds,
                "num_attention_heads": attention.heads,
                "num_key_value_heads": attention.kv_heads,
                "head_dim": attention.head_width,
                "attention_bias": attention.bias,
                "attention_dropout": attention.dropout,
                "rope_parameters": write_rope(position) if isinstance(position, RoPE) else still,
                "linear_num_key_heads": linear.key_heads,
                "linear_num_value_heads": linear.heads,
                "linear_key_head_dim": linear.key_width,
                "linear_value_head_dim": linear.value_width,
                "linear_conv_kernel_dim": conv,
                "linear_allow_neg_eigval": most == 2,
                "linear_a_log_min": decay.rates[0],
                "linear_a_log_max": decay.rates[1],
                "linear_dt_min": decay.steps[0],
                "linear_dt_max": decay.steps[1],
                "max_position_embeddings": spec.context,
                "rms_norm_eps": eps,
                "tie_word_embeddings": spec.head == Tied(),
                "pad_token_id": None,  # their default is beyond a smaller vocabulary
                "initializer_range": deviation,
            }
    return None


def kind_of(layer: LayerSpec) -> str | None:
    """Returns which of the two a layer is, or None."""
    match layer.mix:
        case Residual(mixer=Attention()):
            return FAR
        case Residual(mixer=LinearAttention()):
            return LINEAR
    return None


MAPS = {f"mlp.{part}_proj": f"ffn.mixer.{part}" for part in ("gate", "up", "down")}
FAR_NAMES = {
    **{f"self_attn.{a}_proj": f"mix.mixer.{b}" for a, b in QKVO.items()},
    **{f"self_attn.{part}_norm": f"mix.mixer.{part}_norm.norm" for part in "qk"},
    "post_attention_layernorm": "mix.post",
    "post_feedforward_layernorm": "ffn.post",
    **MAPS,
}
LINEAR_NAMES = {
    **{f"linear_attn.{a}_proj": f"mix.mixer.{b}" for a, b in QKVO.items()},
    "linear_attn.a_proj": "mix.mixer.decay.step",
    "linear_attn.b_proj": "mix.mixer.update.part",
    "linear_attn.g_proj": "mix.mixer.reading.gate",
    "linear_attn.o_norm": "mix.mixer.reading.norm",
    "input_layernorm": "mix.pre",
    "post_attention_layernorm": "ffn.pre",
    **MAPS,
}
LONE = (  # tensors of the linear layers that are called neither weight nor bias
    ("linear_attn.A_log", "mix.mixer.decay.rate"),
    ("linear_attn.dt_bias", "mix.mixer.decay.bias"),
)
CONVS = tuple(f"linear_attn.{part}_conv1d.weight" for part in "qkv")


def rules(spec: Decoder) -> list[Rule]:
    """Returns the weight rules, layer by layer: our names are the same in both kinds, theirs are not."""
    made = named({"model.embed_tokens": "embed", "model.norm": "norm", "lm_head": "head"})
    for i, layer in enumerate(spec.layers):
        theirs, ours = f"model.layers.{i}.", f"layers.{i}."
        names = LINEAR_NAMES if kind_of(layer) == LINEAR else FAR_NAMES
        made += named({theirs + a: ours + b for a, b in names.items()})
        match layer.mix:
            case Residual(mixer=LinearAttention() as linear):
                made += [rule(theirs + a, ours + b) for a, b in LONE]
                three = " ".join(theirs + name for name in CONVS)
                made.append(rule(three, f"{ours}mix.mixer.conv.short.weight", _convs(linear)))
    return made


def _convs(linear: LinearAttention) -> Op:
    """Returns the operation that joins their convolutions of queries, keys and values, each (C, 1, W)."""
    keys = linear.key_heads * linear.key_width
    sizes = [keys, keys, linear.heads * linear.value_width]
    return Op(lambda ts: [torch.cat(ts).squeeze(1)], lambda ts: [t.unsqueeze(1) for t in ts[0].split(sizes)])


FAMILY = Family(
    name="olmo_hybrid",
    model_types=("olmo_hybrid",),
    presets=PRESETS,
    read=read,
    write=write,
    rules=rules,
    prefix="model.",
    renamed={
        r"\.attention_layer_norm\.": ".input_layernorm.",
        r"\.feedforward_layer_norm\.": ".post_attention_layernorm.",
    },
)
