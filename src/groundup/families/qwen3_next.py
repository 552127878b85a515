"""Qwen3-Next: three layers of Gated DeltaNet before each of gated attention, and many small experts in all of them.

Norms of the stream and of heads have weights around zero. Sources: Qwen Team 2025 (the model card and configuration of
Qwen3-Next-80B-A3B); Yang et al. 2024 (Gated DeltaNet, arXiv:2412.06464); Qiu et al. 2025 (gated attention,
arXiv:2505.06708). Left out: the layer that predicts a second token, which transformers leaves unread too.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from functools import partial
from typing import Any

from groundup.errors import SpecError
from groundup.families import llama, mixtral
from groundup.families.family import Family, Keys
from groundup.families.linear_attention import gated_delta
from groundup.families.mixtral import mixture, network
from groundup.families.olmo_hybrid import FAR, LINEAR, kind_of, read_kinds
from groundup.families.qwen3_moe import ROUTERS, read_sparse
from groundup.mixers.attention import GatedAttention
from groundup.mixers.linear_attention import LinearAttention
from groundup.mixers.mlp import GatedMLP, WeighedMLP
from groundup.mixers.moe import MoE
from groundup.model.decoder import Decoder
from groundup.model.heads import Tied, Untied
from groundup.model.layer import Layer
from groundup.model.residual import Residual
from groundup.parts.init import ScaledNormal
from groundup.parts.norm import RMSNorm
from groundup.parts.position import RoPE
from groundup.parts.router import SoftmaxOfTop
from groundup.rules import SQUEEZE, Rule, joined, named, rule, split_within

EVERY = 4  # layers of which the last has attention


def qwen3_next(
    attention: GatedAttention,
    linear: LinearAttention,
    moe: MoE | None,
    *,
    width: int,
    kinds: Sequence[str],
    plain: Container[int] = (),
    hidden: int = 5632,
    vocab: int = 151936,
    context: int = 262144,
    eps: float = 1e-6,
    tied: bool = False,
    deviation: float = 0.02,
) -> Decoder:
    """Returns the spec of a Qwen3-Next.

    Args:
        attention: the mixer of layers of attention; its norm is set here.
        linear: the mixer of the other layers.
        moe: the experts; None where no layer has any.
        width: the width of the residual stream.
        kinds: which of the two mixers each layer has, `LINEAR` or `FAR`.
        plain: the layers without experts.
        hidden: the width inside their feed-forward parts.
        vocab: the number of token ids.
        context: the longest sequence.
        eps: of the norms of the stream, of queries and of keys.
        tied: whether the head reads the token embedding.
        deviation: of the first weights.
    """
    norm = RMSNorm(eps=eps, offset=1.0)
    mixers = {FAR: attention.replace(norm=norm), LINEAR: linear}
    ffns = [GatedMLP(hidden=hidden) if moe is None or i in plain else moe for i in range(len(kinds))]
    made = (
        Layer(mix=Residual(mixers[kind], pre=norm), ffn=Residual(ffn, pre=norm))
        for kind, ffn in zip(kinds, ffns, strict=True)
    )
    return Decoder(
        width=width,
        vocab=vocab,
        context=context,
        layers=tuple(made),
        norm=norm,
        head=Tied() if tied else Untied(),
        init=ScaledNormal(deviation=deviation),
    )


PRESETS = {
    "qwen3-next-80b-a3b": partial(
        qwen3_next,
        GatedAttention(heads=16, kv_heads=2, head_width=256, position=RoPE(theta=1e7, fraction=0.25)),
        gated_delta(heads=32, key_heads=16, key_width=128, value_width=128, eps=1e-6),
        MoE(
            experts=512,
            active=10,
            hidden=512,
            router=SoftmaxOfTop(balance=mixtral.BALANCE),
            shared=WeighedMLP(hidden=512),
        ),
        width=2048,
        kinds=((LINEAR,) * (EVERY - 1) + (FAR,)) * 12,
    ),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of a Qwen3-Next configuration."""
    keys.assume(
        vocab_size=151936,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=48,
        num_attention_heads=16,
        num_key_value_heads=2,
        head_dim=256,
        max_position_embeddings=32768,
    )
    keys.only(hidden_act="silu", mlp_bias=False, use_sliding_window=False)
    position = llama.read_rope(keys, context=keys.number("max_position_embeddings"), fraction=0.25)
    plain: Any = llama.read(keys, position=position)  # whose norm and init are known
    attention, mlp = llama.parts(plain)
    layers, every = len(plain.layers), keys.number("full_attention_interval", default=EVERY)
    moe, sparse = _read_experts(keys), set(read_sparse(keys, layers))
    return qwen3_next(
        GatedAttention(**attention.settings()),
        _read_linear(keys, eps=plain.norm.eps),
        moe if sparse else None,
        width=plain.width,
        kinds=read_kinds(keys, [LINEAR if (i + 1) % every else FAR for i in range(layers)]),
        plain=set(range(layers)) - sparse,
        hidden=mlp.hidden,
        vocab=plain.vocab,
        context=plain.context,
        eps=plain.norm.eps,
        tied=plain.head == Tied(),
        deviation=plain.init.deviation,
    )


def _read_linear(keys: Keys, *, eps: float) -> LinearAttention:
    return gated_delta(
        heads=keys.number("linear_num_value_heads", default=32),
        key_heads=keys.number("linear_num_key_heads", default=16),
        key_width=keys.number("linear_key_head_dim", default=128),
        value_width=keys.number("linear_value_head_dim", default=128),
        conv=keys.number("linear_conv_kernel_dim", default=4),
        eps=eps,
    )


def _read_experts(keys: Keys) -> MoE | None:
    experts = keys.take("num_experts", "num_local_experts", default=512)
    if experts == 0:
        keys.skip("num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob", "shared_expert_intermediate_size")
        mixtral.read_balance(keys)
        return None
    return MoE(
        experts=keys.number("num_experts", "num_local_experts", default=512),
        active=keys.number("num_experts_per_tok", default=10),
        hidden=keys.number("moe_intermediate_size", default=512),
        router=ROUTERS[keys.flag("norm_topk_prob", default=True)](balance=mixtral.read_balance(keys)),
        shared=WeighedMLP(hidden=keys.number("shared_expert_intermediate_size", default=512)),
    )


def write(spec: Decoder) -> dict[str, Any] | None:
    """Returns the configuration of a Qwen3-Next spec."""
    attention, linear, moe, hidden = _parts(spec)
    if attention is None:  # it then says nothing that is there
        attention = GatedAttention(heads=1, kv_heads=1, head_width=8, position=RoPE())
    sizes = llama.write_sizes(
        spec.replace(layers=(Layer(mix=Residual(attention), ffn=Residual(GatedMLP(hidden=hidden))),) * len(spec.layers))
    )
    match attention.position:
        case RoPE(fraction=fraction):
            return {
                "architectures": ["Qwen3NextForCausalLM"],
                **sizes,
                "rope_parameters": sizes["rope_parameters"] | {"partial_rotary_factor": fraction},
                "attention_bias": attention.bias,
                "layer_types": [kind_of(layer) for layer in spec.layers],
                **_said_of_linear(linear),
                **_said_of_experts(moe),
                "decoder_sparse_step": 1,
                "mlp_only_layers": [i for i, layer in enumerate(spec.layers) if network(layer) is not None],
            }
    return None


def _said_of_linear(linear: LinearAttention | None) -> dict[str, Any]:
    """What says how the layers of Gated DeltaNet are, if there are any."""
    if linear is None:
        return {}
    return {
        "linear_num_key_heads": linear.key_heads,
        "linear_num_value_heads": linear.heads,
        "linear_key_head_dim": linear.key_width,
        "linear_value_head_dim": linear.value_width,
        "linear_conv_kernel_dim": linear.conv,
    }


def _said_of_experts(moe: MoE | None) -> dict[str, Any]:
    """What says how the experts are, if there are any."""
    match moe:
        case None:
            return {"num_experts": 0}
        case MoE(shared=WeighedMLP(hidden=shared)):
            return {
                "num_experts": moe.experts,
                "num_experts_per_tok": moe.active,
                "moe_intermediate_size": moe.hidden,
                "shared_expert_intermediate_size": shared,
                "norm_topk_prob": isinstance(moe.router, SoftmaxOfTop),
                "router_aux_loss_coef": moe.router.balance,
            }
    raise SpecError("Qwen3-Next has a weighed network beside its experts; see groundup.families.qwen3_next")


def _parts(spec: Decoder) -> tuple[GatedAttention | None, LinearAttention | None, MoE | None, int]:
    """The mixers of either kind and the experts, of those that are there; the width inside layers without experts."""
    mixers = [layer.mix.mixer for layer in spec.layers if layer.mix]
    attention = next((mixer for mixer in mixers if isinstance(mixer, GatedAttention)), None)
    linear = next((mixer for mixer in mixers if isinstance(mixer, LinearAttention)), None)
    moe = next(filter(None, map(mixture, spec.layers)), None)
    hidden = next((mlp.hidden for mlp in map(network, spec.layers) if mlp), moe.hidden if moe else None)
    if hidden is None or (attention is None and linear is None):
        raise SpecError(
            "Qwen3-Next has layers of Gated DeltaNet and of gated attention, and experts; "
            "see groundup.families.qwen3_next"
        )
    return attention, linear, moe, hidden


def rules(spec: Decoder) -> list[Rule]:
    """Returns the weight rules; layers of either kind have their own, for both have an ``out``."""
    attention, linear, moe, _ = _parts(spec)
    theirs, ours, maps = "model.layers.{l}", "layers.{l}", ("gate", "up", "down")
    same = {
        "model.embed_tokens": "embed",
        f"{theirs}.input_layernorm": f"{ours}.mix.pre",
        f"{theirs}.post_attention_layernorm": f"{ours}.ffn.pre",
        **{f"{theirs}.mlp.{name}_proj": f"{ours}.ffn.mixer.{name}" for name in maps},
        **{f"{theirs}.mlp.shared_expert.{name}_proj": f"{ours}.ffn.mixer.shared.{name}" for name in maps},
        f"{theirs}.mlp.shared_expert_gate": f"{ours}.ffn.mixer.shared.weigh",
        "model.norm": "norm",
        "lm_head": "head",
    }
    inside = {
        FAR: [] if attention is None else _far_rules(attention),
        LINEAR: [] if linear is None else _linear_rules(linear),
    }
    return [
        *named(same),
        *(
            Rule(_at(i, each.theirs), _at(i, each.ours), each.op)
            for i, layer in enumerate(spec.layers)
            for each in inside[kind_of(layer) or FAR]
        ),
        *(mixtral.expert_rules("mlp", moe.experts, {name: f"{name}_proj" for name in maps}) if moe else ()),
    ]


def _at(layer: int, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name.replace("{l}", str(layer)) for name in names)


def _far_rules(attention: GatedAttention) -> list[Rule]:
    theirs, ours = "model.layers.{l}.self_attn", "layers.{l}.mix.mixer"
    cut = split_within(attention.heads, attention.head_width, attention.head_width)
    alike = {"k_proj": "k", "v_proj": "v", "o_proj": "out", "q_norm": "q_norm", "k_norm": "k_norm"}
    same = named({f"{theirs}.{a}": f"{ours}.{b}" for a, b in alike.items()})
    return [*joined(f"{theirs}.q_proj", ours, ("q", "gate"), cut), *same]


def _linear_rules(linear: LinearAttention) -> list[Rule]:
    theirs, ours, each = "model.layers.{l}.linear_attn", "layers.{l}.mix.mixer", linear.heads // linear.key_heads
    keys, values = linear.key_width, each * linear.value_width
    alike = {
        "A_log": "decay.rate",
        "dt_bias": "decay.bias",
        "norm.weight": "reading.norm.weight",
        "out_proj.weight": "out.weight",
    }
    four = " ".join(f"{ours}.{name}.weight" for name in ("q", "k", "v", "reading.gate"))
    two = f"{ours}.update.part.weight {ours}.decay.step.weight"
    return [
        rule(f"{theirs}.in_proj_qkvz.weight", four, split_within(linear.key_heads, keys, keys, values, values)),
        rule(f"{theirs}.in_proj_ba.weight", two, split_within(linear.key_heads, each, each)),
        rule(f"{theirs}.conv1d.weight", f"{ours}.conv.short.weight", SQUEEZE),
        *(rule(f"{theirs}.{a}", f"{ours}.{b}") for a, b in alike.items()),
    ]


FAMILY = Family(
    name="qwen3_next",
    model_types=("qwen3_next",),
    presets=PRESETS,
    read=read,
    write=write,
    rules=rules,
    prefix="model.",
    ignored=re.compile(r"mtp\..*"),
)
