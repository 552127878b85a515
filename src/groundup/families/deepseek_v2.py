"""DeepSeek-V2 and V2-Lite: latent attention, and mixtures of many small experts after a first dense layer.

Source: DeepSeek-AI 2024 (arXiv:2405.04434), section 2, section 3.1.2 and appendix B; the rotation beyond the trained
length, the widths inside and the weight of the balance loss are those of the published configurations. Left out: losses
that balance machines, and a balance within each sequence: that of the whole batch is here.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from groundup.errors import SpecError
from groundup.families import llama, mixtral
from groundup.families.family import Keys
from groundup.mixers.attention import Attention
from groundup.mixers.latent_attention import LatentAttention
from groundup.mixers.mlp import GatedMLP
from groundup.mixers.moe import MoE
from groundup.model.decoder import Decoder
from groundup.model.layer import LayerSpec
from groundup.model.residual import Residual
from groundup.parts.norm import RMSNorm
from groundup.parts.position import RoPE, Scaling, YaRN, yarn_amplitude
from groundup.parts.router import Grouped, TopOfSoftmax
from groundup.rules import Rule, halves, instead, rule
from groundup.specs import override, override_all

NORM = RMSNorm(eps=1e-6)  # of latents, whatever the stream's
BALANCE = 0.001


def deepseek(
    *,
    heads: int,
    hidden: int,
    experts: int,
    active: int,
    expert_hidden: int,
    router: Grouped,
    shared: int = 2,
    dense: int = 1,
    latent: int = 512,
    query_latent: int | None = 1536,
    key_width: int = 128,
    turned_width: int = 64,
    value_width: int = 128,
    position: RoPE = RoPE(),  # noqa: B008 - a spec is a value
    strength: float | None = None,
    **sizes: Any,
) -> Decoder:
    """Returns the spec of a DeepSeek-V2 or V3.

    Args:
        heads: heads of attention.
        hidden: the width inside the feed-forward part of dense layers.
        experts: how many experts the other layers have.
        active: through how many of them a token goes.
        expert_hidden: the width inside an expert.
        router: which token goes where.
        shared: the width that all tokens go through besides, in widths of an expert.
        dense: how many of the first layers have no experts.
        latent: the width of what keys and values are made of.
        query_latent: the width of what queries are made of; None means the stream.
        key_width: the width of what a head's key takes from the latent.
        turned_width: the width of what turns by place.
        value_width: the width of a head's value.
        position: the rotation.
        strength: of the sharpening of scores in a longer context; None leaves them as they are.
        sizes: as `groundup.families.llama.llama` takes them.
    """
    attention = LatentAttention(
        heads=heads,
        latent=latent,
        key_width=key_width,
        turned_width=turned_width,
        value_width=value_width,
        query_latent=query_latent,
        position=position,
        norm=NORM,
        sharpness=sharpness(position.scaling, strength),
    )
    everyone = GatedMLP(hidden=shared * expert_hidden)
    moe = MoE(experts=experts, active=active, hidden=expert_hidden, router=router, shared=everyone)
    return mixed(llama.llama(heads=heads, hidden=hidden, **sizes), attention, moe, dense=dense)


def mixed(spec: Decoder, attention: LatentAttention, moe: MoE, *, dense: int) -> Decoder:
    """Returns a LLaMA with this attention, and with mixtures after its first ``dense`` layers."""
    sparse = range(dense, len(spec.layers))
    return override_all(spec, {"layers.*.mix.mixer": attention, **{f"layers.{i}.ffn.mixer": moe for i in sparse}})


def sharpness(scaling: Scaling, strength: float | None) -> float:
    """Returns the square of YaRN's amplitude, of this strength: for whole scores, of which only a part is turned."""
    if strength is None or not isinstance(scaling, YaRN):
        return 1.0
    return yarn_amplitude(scaling.factor, strength) ** 2


rope = RoPE(scaling=YaRN(factor=40.0, original=4096, sharpness=1.0))
v2 = partial(deepseek, active=6, vocab=102400, context=163840, position=rope, strength=0.707, eps=1e-6)

PRESETS = {
    "deepseek-v2-lite": partial(
        v2,
        width=2048,
        layers=27,
        heads=16,
        hidden=10944,
        query_latent=None,
        experts=64,
        expert_hidden=1408,
        router=TopOfSoftmax(balance=BALANCE),
    ),
    "deepseek-v2": partial(
        v2,
        width=5120,
        layers=60,
        heads=128,
        hidden=12288,
        experts=160,
        expert_hidden=1536,
        router=TopOfSoftmax(groups=8, kept=3, scale=16.0, balance=BALANCE),
    ),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of a DeepSeek-V2 configuration."""
    keys.assume(q_lora_rank=1536, n_shared_experts=2, routed_scaling_factor=1.0, first_k_dense_replace=0)
    keys.only(scoring_func="softmax", norm_topk_prob=False)
    groups = {"groups": keys.number("n_group", default=1), "kept": keys.number("topk_group", default=1)}
    methods = {"greedy": {}, "group_limited_greedy": groups}
    return read_parts(keys, TopOfSoftmax, keys.choice("topk_method", known=methods, default="greedy"))


def read_parts(keys: Keys, router: type[Grouped], groups: dict[str, Any]) -> Decoder:
    """Returns the spec of a configuration of DeepSeek-V2 or V3 with a router of this kind and these groups."""
    keys.assume(kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128)
    key_width, turned_width = keys.number("qk_nope_head_dim"), keys.number("qk_rope_head_dim")
    keys.assume(head_dim=turned_width)
    known = {"qk_head_dim": key_width + turned_width, "head_dim": turned_width, "moe_layer_freq": 1}
    known |= {"attention_bias": False, "mlp_bias": False, "num_key_value_heads": keys.number("num_attention_heads")}
    keys.only(**known)
    keys.flag("output_router_logits", default=False)
    keys.flag("seq_aux", default=True)  # within each sequence or not, which is training's
    keys.take("ep_size", default=1)  # over how many devices experts were spread
    keys.skip("quantization_config")  # how files are packed: their tensors say it themselves
    plain = llama.read(keys)
    rotated, mlp = llama.parts(plain)
    assert isinstance(rotated.position, RoPE)
    strength = keys.take("rope_parameters", "rope_scaling", default={}).get("mscale_all_dim")
    attention = LatentAttention(
        heads=rotated.heads,
        latent=keys.number("kv_lora_rank"),
        key_width=key_width,
        turned_width=turned_width,
        value_width=keys.number("v_head_dim"),
        query_latent=keys.number("q_lora_rank", default=None),
        position=rotated.position,
        norm=NORM,
        sharpness=sharpness(rotated.position.scaling, strength),
        dropout=rotated.dropout,
    )
    hidden = keys.number("moe_intermediate_size")
    moe = MoE(
        experts=keys.number("n_routed_experts"),
        active=keys.number("num_experts_per_tok"),
        hidden=hidden,
        act=mlp.act,
        router=router(
            **groups,
            scale=keys.positive("routed_scaling_factor"),
            balance=keys.number("aux_loss_alpha", default=0.0, whole=False),
        ),
        shared=GatedMLP(hidden=keys.number("n_shared_experts") * hidden, act=mlp.act),
    )
    return mixed(plain, attention, moe, dense=read_dense(keys, layers=len(plain.layers)))


def read_dense(keys: Keys, *, layers: int) -> int:
    """Returns how many of the first layers have no experts.

    Raises:
        SpecError: it is no such number, or no layer has.
    """
    dense = keys.take("first_k_dense_replace")
    if not isinstance(dense, int) or not 0 <= dense < layers:
        raise SpecError(
            f"the configuration's first_k_dense_replace is {dense!r}; expected a whole number from 0 to {layers - 1}"
        )
    return dense


def write(spec: Decoder) -> dict[str, Any]:
    """Returns the configuration of a DeepSeek-V2 spec."""
    said, router = write_parts(spec)
    method = "greedy" if router.groups == 1 else "group_limited_greedy"
    return {"architectures": ["DeepseekV2ForCausalLM"], **said, "topk_method": method, "norm_topk_prob": False}


def write_parts(spec: Decoder) -> tuple[dict[str, Any], Grouped]:
    """Returns what configurations of DeepSeek-V2 and V3 say alike, and the router.

    Raises:
        SpecError: the spec is of other parts.
    """
    spec_of_experts, sparse, moe = mixtral.dense(spec)
    attention = latent_of(spec)
    heads = {"heads": attention.heads, "kv_heads": attention.heads, "head_width": attention.turned_width}
    rotated = Attention(position=attention.position, dropout=attention.dropout, **heads)
    match moe:
        case MoE(router=Grouped() as router, shared=GatedMLP(hidden=shared)):
            said = llama.write_sizes(override(spec_of_experts, "layers.*.mix.mixer", rotated))
            said["rope_parameters"] |= _strength(attention)
            return said | {
                "q_lora_rank": attention.query_latent,
                "kv_lora_rank": attention.latent,
                "qk_nope_head_dim": attention.key_width,
                "qk_rope_head_dim": attention.turned_width,
                "v_head_dim": attention.value_width,
                "first_k_dense_replace": sparse[0],
                "n_routed_experts": moe.experts,
                "num_experts_per_tok": moe.active,
                "moe_intermediate_size": moe.hidden,
                "n_shared_experts": shared // moe.hidden,
                "n_group": router.groups,
                "topk_group": router.kept,
                "routed_scaling_factor": router.scale,
                "aux_loss_alpha": router.balance,
            }, router
    raise SpecError("DeepSeek's mixtures have a shared expert and a grouped router; see groundup.families.deepseek_v2")


def latent_of(spec: Decoder) -> LatentAttention:
    """Returns the attention of the first layer.

    Raises:
        SpecError: it is of another kind.
    """
    match spec.layers:
        case (LayerSpec(mix=Residual(mixer=LatentAttention() as attention)), *_):
            return attention
    raise SpecError("DeepSeek has layers of LatentAttention; see groundup.families.deepseek_v2")


def _strength(attention: LatentAttention) -> dict[str, float]:
    """The strength of the sharpness, to the digits that somebody may have said it with."""
    match attention:
        case LatentAttention(position=RoPE(scaling=YaRN(factor=factor)), sharpness=squared) if min(factor, squared) > 1:
            return {"mscale_all_dim": round((squared**0.5 - 1) / (yarn_amplitude(factor) - 1), 9)}
    return {}


def rules(spec: Decoder) -> list[Rule]:
    """Returns the weight rules: LLaMA's, those of experts, and of latents whose turned values pair as neighbours."""
    attention, (_, _, moe) = latent_of(spec), mixtral.dense(spec)
    theirs, ours = "model.layers.{l}.self_attn", "layers.{l}.mix.mixer"
    maps = {name: f"{name}_proj" for name in ("gate", "up", "down")}
    queries = halves(attention.heads, attention.turned_width, kept=attention.key_width)
    shared = [("model.layers.{l}.mlp.shared_experts", "layers.{l}.ffn.mixer.shared", name) for name in maps]
    return [
        *instead(llama.rules(spec), rule(f"{theirs}.q_proj.weight", f"{ours}.q.weight", queries)),
        rule(f"{theirs}.q_a_proj.weight", f"{ours}.q.down.weight"),
        rule(f"{theirs}.q_a_layernorm.weight", f"{ours}.q.norm.weight"),
        rule(f"{theirs}.q_b_proj.weight", f"{ours}.q.up.weight", queries),
        rule(
            f"{theirs}.kv_a_proj_with_mqa.weight",
            f"{ours}.down.weight",
            halves(1, attention.turned_width, kept=attention.latent),
        ),
        rule(f"{theirs}.kv_a_layernorm.weight", f"{ours}.norm.weight"),
        rule(f"{theirs}.kv_b_proj.weight", f"{ours}.up.weight"),
        *mixtral.expert_rules("mlp", moe.experts, maps),
        *(rule(f"{a}.{name}_proj.weight", f"{b}.{name}.weight") for a, b, name in shared),
    ]


FAMILY = dataclasses.replace(
    llama.FAMILY, name="deepseek_v2", model_types=("deepseek_v2",), presets=PRESETS, read=read, write=write, rules=rules
)
