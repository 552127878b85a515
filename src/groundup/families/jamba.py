"""Jamba: Mamba with norms inside, a layer of attention without places in every eight, experts in every second layer.

Sources: Lieber et al. 2024 (arXiv:2403.19887), section 3; Jamba Team 2024 (Jamba-1.5, arXiv:2408.12570), section 2;
sizes are those of the published configurations. Jamba-1.5-Mini is Jamba-v0.1 trained further.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial
from typing import Any

from groundup.errors import SpecError
from groundup.families import mamba, mixtral
from groundup.families.family import ACTS, THEIR_ACTS, Family, Keys, head_width
from groundup.families.mixtral import mixture
from groundup.mixers.attention import Attention
from groundup.mixers.mamba import Mamba
from groundup.mixers.mlp import GatedMLP
from groundup.mixers.moe import MoE
from groundup.model.decoder import Decoder
from groundup.model.heads import Tied, Untied
from groundup.model.layer import Layer, LayerSpec
from groundup.model.residual import Residual
from groundup.parts.init import ScaledNormal
from groundup.parts.norm import RMSNorm
from groundup.parts.position import NoPosition
from groundup.parts.router import TopOfSoftmax
from groundup.rules import QKVO, Rule, named


def jamba(
    near: Mamba,
    plain: GatedMLP,
    routed: GatedMLP | MoE,
    *,
    width: int,
    layers: int,
    heads: int,
    kv_heads: int = 8,
    far: Iterable[int] = (),
    sparse: Iterable[int] = (),
    vocab: int = 65536,
    context: int = 262144,
    eps: float = 1e-6,
    tied: bool = False,
    deviation: float = 0.02,
    dropout: float = 0.0,
) -> Decoder:
    """Returns the spec of a Jamba of these sizes.

    Args:
        near: the mixer of most layers; its norm is set here.
        plain: their feed-forward part.
        routed: that of the layers with experts.
        width: the width of the residual stream.
        layers: the number of layers.
        heads: heads of queries, each ``width / heads`` wide.
        kv_heads: heads of keys and values.
        far: the layers with attention.
        sparse: the layers with experts.
        vocab: the number of token ids.
        context: the longest sequence that is meant.
        eps: of all norms.
        tied: whether the head reads the token embedding.
        deviation: of the first weights.
        dropout: of attention weights.
    """
    norm, far, sparse = RMSNorm(eps=eps), set(far), set(sparse)
    each = head_width(width, heads)
    attention = Attention(heads=heads, kv_heads=kv_heads, head_width=each, position=NoPosition(), dropout=dropout)
    made = {
        (i, j): Layer(mix=Residual(mixer, pre=norm), ffn=Residual(ffn, pre=norm))
        for i, mixer in enumerate((near.replace(norm=norm), attention))
        for j, ffn in enumerate((plain, routed))
    }
    return Decoder(
        width=width,
        vocab=vocab,
        context=context,
        layers=tuple(made[i in far, i in sparse] for i in range(layers)),
        norm=norm,
        head=Tied() if tied else Untied(),
        init=ScaledNormal(deviation=deviation),
    )


def published(*, width: int, layers: int, heads: int, hidden: int) -> Decoder:
    """Returns the spec of a Jamba as published: attention in layers 4, 12, 20 ..., experts in 1, 3, 5 ..."""
    near = Mamba(states=16, rank=math.ceil(width / 16))
    moe = MoE(experts=16, active=2, hidden=hidden, router=TopOfSoftmax(balance=mixtral.BALANCE))
    chosen = {"far": range(4, layers, 8), "sparse": range(1, layers, 2)}
    return jamba(near, GatedMLP(hidden=hidden), moe, width=width, layers=layers, heads=heads, **chosen)


PRESETS = {
    "jamba-v0.1": partial(published, width=4096, layers=32, heads=32, hidden=14336),
    "jamba-1.5-mini": partial(published, width=4096, layers=32, heads=32, hidden=14336),
    "jamba-1.5-large": partial(published, width=8192, layers=72, heads=64, hidden=24576),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of a Jamba configuration."""
    keys.only(mamba_inner_layernorms=True, sliding_window=None)
    keys.skip("use_mamba_kernels", "use_mambapy", "use_associative_scan")  # how transformers computes it
    keys.skip("num_logits_to_keep", "calc_logits_for_entire_prompt")  # of which tokens it computes logits
    width, layers = keys.number("hidden_size", default=4096), keys.layers("num_hidden_layers", default=32)
    act = keys.choice("hidden_act", known=ACTS, default="silu")
    plain = GatedMLP(hidden=keys.number("intermediate_size", default=14336), act=act)
    sparse = _read_every(keys, "expert", layers, (2, 1))
    experts = keys.number("num_experts", "num_local_experts", default=16)
    active, balance = keys.number("num_experts_per_tok", default=2), mixtral.read_balance(keys)
    routed = plain
    if experts > 1 and sparse:
        router = TopOfSoftmax(balance=balance)
        routed = MoE(experts=experts, active=active, hidden=plain.hidden, act=act, router=router)
    return jamba(
        _read_mamba(keys, width=width, act=act),
        plain,
        routed,
        width=width,
        layers=layers,
        heads=keys.number("num_attention_heads", default=32),
        kv_heads=keys.number("num_key_value_heads", default=8),
        far=_read_every(keys, "attn", layers, (8, 4)),
        sparse=sparse,
        vocab=keys.number("vocab_size", default=65536),
        context=keys.number("max_position_embeddings", "n_ctx", default=262144),
        eps=keys.number("rms_norm_eps", default=1e-6, whole=False),
        tied=keys.flag("tie_word_embeddings", default=False),
        deviation=keys.number("initializer_range", default=0.02, whole=False),
        dropout=keys.number("attention_dropout", default=0.0, whole=False),
    )


def _read_mamba(keys: Keys, *, width: int, act: str) -> Mamba:
    rank = keys.take("mamba_dt_rank", default="")
    return Mamba(
        states=keys.number("mamba_d_state", default=16),
        rank=math.ceil(width / 16) if rank in ("", "auto") else keys.number("mamba_dt_rank"),
        expand=keys.number("mamba_expand", default=2),
        conv=keys.number("mamba_d_conv", default=4),
        act=act,
        bias=keys.flag("mamba_proj_bias", default=False),
        conv_bias=keys.flag("mamba_conv_bias", default=True),
    )


def _read_every(keys: Keys, kind: str, layers: int, usual: tuple[int, int]) -> range:
    """Returns the layers of a kind: the first of them, and every so many after it."""
    period = keys.number(f"{kind}_layer_period", default=usual[0])
    first = keys.take(f"{kind}_layer_offset", default=usual[1])
    if not isinstance(first, int) or not 0 <= first < period:
        raise SpecError(
            f"the configuration's {kind}_layer_offset is {first!r}; expected a number of a layer below {period}"
        )
    return range(first, layers, period)


def write(spec: Decoder) -> dict[str, Any] | None:
    """Returns the configuration of a Jamba spec."""
    mixers = [layer.mix.mixer for layer in spec.layers if layer.mix]
    near = next((mixer for mixer in mixers if isinstance(mixer, Mamba)), None)
    attention = next((mixer for mixer in mixers if isinstance(mixer, Attention)), None)
    mixtures = {i: moe for i, layer in enumerate(spec.layers) if (moe := mixture(layer)) is not None}
    match spec:
        case Decoder(norm=RMSNorm(eps=eps), init=ScaledNormal(deviation=deviation)) if near or attention:
            ffn = _ffn(spec.layers[0])
            moe = next(iter(mixtures.values()), MoE(experts=1, active=1, hidden=1))
            far = [i for i, mixer in enumerate(mixers) if isinstance(mixer, Attention)]
            return {
                "architectures": ["JambaForCausalLM"],
                "vocab_size": spec.vocab,
                "hidden_size": spec.width,
                "intermediate_size": ffn.hidden,
                "num_hidden_layers": len(spec.layers),
                "num_attention_heads": attention.heads if attention else 1,
                "num_key_value_heads": attention.kv_heads if attention else 1,
                "attention_dropout": attention.dropout if attention else 0.0,
                **_write_every("attn", far, len(spec.layers)),
                **_write_every("expert", list(mixtures), len(spec.layers)),
                "num_experts": moe.experts,
                "num_experts_per_tok": moe.active,
                "router_aux_loss_coef": moe.router.balance,
                **_write_mamba(near),
                "hidden_act": THEIR_ACTS[ffn.act],
                "max_position_embeddings": spec.context,
                "rms_norm_eps": eps,
                "tie_word_embeddings": spec.head == Tied(),
                "initializer_range": deviation,
            }
    return None


def _write_mamba(mixer: Mamba | None) -> dict[str, Any]:
    """What says how the layers of Mamba are, if there are any."""
    if mixer is None:
        return {}
    return {
        "mamba_d_state": mixer.states,
        "mamba_dt_rank": mixer.rank,
        "mamba_expand": mixer.expand,
        "mamba_d_conv": mixer.conv,
        "mamba_proj_bias": mixer.bias,
        "mamba_conv_bias": mixer.conv_bias,
    }


def _write_every(kind: str, chosen: list[int], layers: int) -> dict[str, Any]:
    """What says that these layers are of a kind; none of them begin beyond the last layer."""
    first = chosen[0] if chosen else layers
    period = chosen[1] - first if len(chosen) > 1 else layers + 1
    return {f"{kind}_layer_period": period, f"{kind}_layer_offset": first}


def _ffn(layer: LayerSpec) -> GatedMLP | MoE:
    match layer.ffn:
        case Residual(mixer=(GatedMLP() | MoE()) as ffn) if ffn.act in THEIR_ACTS:
            return ffn
    raise SpecError("Jamba has gated feed-forward parts; see groundup.families.jamba")


def rules(spec: Decoder) -> list[Rule]:
    """Returns the weight rules; layers of either kind have their own, for both have an ``out``."""
    theirs, ours = "model.layers.{l}", "layers.{l}"
    experts = max((moe.experts for layer in spec.layers if (moe := mixture(layer)) is not None), default=0)
    maps = {name: f"{name}_proj" for name in ("gate", "up", "down")}
    same = {
        "model.embed_tokens": "embed",
        f"{theirs}.input_layernorm": f"{ours}.mix.pre",
        f"{theirs}.pre_ff_layernorm": f"{ours}.ffn.pre",
        **{f"{theirs}.feed_forward.{a}": f"{ours}.ffn.mixer.{b}" for b, a in maps.items()},
        "model.final_layernorm": "norm",
        "lm_head": "head",
    }
    return [
        *named(same),
        *(part for i, layer in enumerate(spec.layers) for part in _mixer_rules(layer, i)),
        *(mixtral.expert_rules("feed_forward", experts, maps, router="router") if experts else ()),
    ]


def _mixer_rules(layer: LayerSpec, i: int) -> list[Rule]:
    theirs, ours = f"model.layers.{i}", f"layers.{i}.mix.mixer"
    match layer.mix:
        case Residual(mixer=Mamba()):
            names = {"dt": "step", "b": "b", "c": "c"}
            norms = named({f"{theirs}.mamba.{a}_layernorm": f"{ours}.{b}_norm" for a, b in names.items()})
            return [*mamba.mixer_rules(f"{theirs}.mamba", ours), *norms]
    return named({f"{theirs}.self_attn.{a}_proj": f"{ours}.{b}" for a, b in QKVO.items()})


FAMILY = Family(
    name="jamba", model_types=("jamba",), presets=PRESETS, read=read, write=write, rules=rules, prefix="model."
)
