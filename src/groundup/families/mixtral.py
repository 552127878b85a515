"""Mixtral: Mistral whose feed-forward parts are mixtures of eight experts, two for each token.

Sources: Jiang et al. 2024 (arXiv:2401.04088), table 1, for 8x7B; 8x22B from its published configuration.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from groundup.errors import SpecError
from groundup.families import llama, mistral
from groundup.families.family import Keys
from groundup.families.windows import write_window
from groundup.mixers.mlp import GatedMLP
from groundup.mixers.moe import MoE
from groundup.model.decoder import Decoder
from groundup.model.layer import LayerSpec
from groundup.model.residual import Residual
from groundup.parts.position import RoPE
from groundup.parts.router import Router, SoftmaxOfTop
from groundup.rules import STACK, Rule, rule
from groundup.specs import override, override_all

BALANCE = 0.001  # the weight of the balance loss where a configuration does not say it


def mixtral(*, experts: int, active: int, balance: float = BALANCE, window: int | None = None, **sizes: Any) -> Decoder:
    """Returns the spec of a Mixtral.

    Args:
        experts: how many experts a layer has.
        active: through how many of them a token goes.
        balance: the weight of the balance loss in training.
        window: how many tokens a token sees; None means all before it.
        sizes: as `groundup.families.llama.llama` takes them; ``hidden`` is that of an expert.
    """
    spec = mistral.mistral(window=window, **sizes)
    return routed(spec, experts=experts, active=active, router=SoftmaxOfTop(balance=balance))


def routed(spec: Decoder, *, experts: int, active: int, router: Router) -> Decoder:
    """Returns a LLaMA with a mixture of experts in place of each feed-forward part, each expert as large as that."""
    _, mlp = llama.parts(spec)
    moe = MoE(experts=experts, active=active, hidden=mlp.hidden, act=mlp.act, router=router)
    return override(spec, "layers.*.ffn.mixer", moe)


def dense(spec: Decoder) -> tuple[Decoder, list[int], MoE]:
    """Returns a LLaMA with no experts, the layers that have them, and the mixture of the first of these.

    The feed-forward parts in their place are as wide as that of a layer that has none, or as an expert.

    Raises:
        SpecError: no layer has experts.
    """
    found = {i: moe for i, layer in enumerate(spec.layers) if (moe := mixture(layer)) is not None}
    if not found:
        raise SpecError("mixtures of experts have layers of MoE; see groundup.families.mixtral")
    moe = next(iter(found.values()))
    hidden = next((mlp.hidden for layer in spec.layers if (mlp := network(layer)) is not None), moe.hidden)
    plain = GatedMLP(hidden=hidden, act=moe.act)
    return override_all(spec, {f"layers.{i}.ffn.mixer": plain for i in found}), list(found), moe


def mixture(layer: LayerSpec) -> MoE | None:
    """Returns the experts of a layer, or None."""
    match layer.ffn:
        case Residual(mixer=MoE() as moe):
            return moe
    return None


def network(layer: LayerSpec) -> GatedMLP | None:
    """Returns the feed-forward network of a layer, or None."""
    match layer.ffn:
        case Residual(mixer=GatedMLP() as mlp):
            return mlp
    return None


make = partial(mixtral, experts=8, active=2, balance=0.02, kv_heads=8, position=RoPE(theta=1e6))

PRESETS = {
    "mixtral-8x7b": partial(make, width=4096, layers=32, heads=32, hidden=14336, context=32768),
    "mixtral-8x22b": partial(make, width=6144, layers=56, heads=48, hidden=16384, context=65536),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of a Mixtral configuration."""
    keys.assume(num_key_value_heads=8, max_position_embeddings=131072, rms_norm_eps=1e-5)
    keys.only(attention_bias=False, mlp_bias=False, router_jitter_noise=0.0)
    position = llama.read_rope(keys, context=keys.number("max_position_embeddings"), theta=1e6)
    spec = mistral.windowed(llama.read(keys, position=position), keys.number("sliding_window", default=None))
    sizes = {
        "experts": keys.number("num_local_experts", "num_experts", default=8),
        "active": keys.number("num_experts_per_tok", default=2),
    }
    return routed(spec, router=SoftmaxOfTop(balance=read_balance(keys)), **sizes)


def read_balance(keys: Keys) -> float:
    """Returns the weight of the balance loss."""
    keys.flag("output_router_logits", default=False)  # whether transformers' class adds it: training is the trainer's
    return keys.number("router_aux_loss_coef", default=BALANCE, whole=False)


def write(spec: Decoder) -> dict[str, Any]:
    """Returns the configuration of a Mixtral spec."""
    plain, _, moe = dense(spec)
    said = {
        "num_local_experts": moe.experts,
        "num_experts_per_tok": moe.active,
        "router_aux_loss_coef": moe.router.balance,
    }
    return {"architectures": ["MixtralForCausalLM"], **llama.write_sizes(plain), **write_window(spec), **said}


def rules(spec: Decoder) -> list[Rule]:
    """Returns the weight rules: LLaMA's, and stacks of what transformers writes expert by expert."""
    *_, moe = dense(spec)
    named = {"gate": "w1", "down": "w2", "up": "w3"}
    return [*llama.rules(spec), *expert_rules("block_sparse_moe", moe.experts, named)]


def expert_rules(block: str, experts: int, named: dict[str, str], *, router: str = "gate") -> list[Rule]:
    """Returns the rules of a router and its experts.

    Args:
        block: what transformers' files call the mixture.
        experts: how many there are.
        named: what they call an expert's maps, by our names.
        router: what they call the router.
    """
    theirs, ours = f"model.layers.{{l}}.{block}", "layers.{l}.ffn.mixer"
    each = [[f"{theirs}.experts.{e}.{name}.weight" for e in range(experts)] for name in named.values()]
    return [
        rule(f"{theirs}.{router}.weight", f"{ours}.router.score.weight"),
        *(rule(" ".join(names), f"{ours}.experts.{x}.weight", STACK) for x, names in zip(named, each, strict=True)),
    ]


FAMILY = dataclasses.replace(
    llama.FAMILY, name="mixtral", model_types=("mixtral",), presets=PRESETS, read=read, write=write, rules=rules
)
