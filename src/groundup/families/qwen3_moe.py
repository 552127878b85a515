"""Qwen3's mixtures of experts: Qwen3 whose feed-forward parts have 128 experts, eight for each token, none shared.

Source: Yang et al. 2025 (arXiv:2505.09388), section 2 and table 2; the widths of the experts, vocabularies and contexts
are those of the published configurations.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from groundup.errors import SpecError
from groundup.families import llama, mistral, mixtral, qwen3
from groundup.families.family import Keys
from groundup.families.windows import write_window
from groundup.mixers.moe import MoE
from groundup.model.decoder import Decoder
from groundup.parts.position import RoPE
from groundup.parts.router import Router, SoftmaxOfTop, TopOfSoftmax
from groundup.rules import Rule
from groundup.specs import override_all

ROUTERS: dict[bool, type[Router]] = {True: SoftmaxOfTop, False: TopOfSoftmax}  # by whether weights sum to one


def qwen3_moe(
    *, experts: int, active: int, balance: float = mixtral.BALANCE, window: int | None = None, **sizes: Any
) -> Decoder:
    """Returns the spec of a Qwen3 with experts in every layer, whose weights sum to one.

    Args:
        experts: how many experts a layer has.
        active: through how many of them a token goes.
        balance: the weight of the balance loss in training.
        window: how many tokens a token sees; None means all before it.
        sizes: as `groundup.families.llama.llama` takes them; ``hidden`` is that of an expert.
    """
    spec = mistral.windowed(qwen3.qwen3(**sizes), window)
    return mixtral.routed(spec, experts=experts, active=active, router=SoftmaxOfTop(balance=balance))


sizes = {"head_width": 128, "vocab": 151936, "context": 40960, "position": RoPE(theta=1e6), "eps": 1e-6}
make = partial(qwen3_moe, experts=128, active=8, kv_heads=4, **sizes)

PRESETS = {
    "qwen3-30b-a3b": partial(make, width=2048, layers=48, heads=32, hidden=768),
    "qwen3-235b-a22b": partial(make, width=4096, layers=94, heads=64, hidden=1536),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of a Qwen3-MoE configuration."""
    keys.assume(num_key_value_heads=4, max_position_embeddings=32768, sliding_window=4096, intermediate_size=6144)
    keys.only(mlp_bias=False)
    keys.skip("max_window_layers")  # transformers' class gives all layers the window, or none
    plain = qwen3.normed(llama.read(keys))
    window = keys.number("sliding_window", default=None)
    plain = mistral.windowed(plain, window if keys.flag("use_sliding_window", default=False) else None)
    router = ROUTERS[keys.flag("norm_topk_prob", default=False)](balance=mixtral.read_balance(keys))
    moe = MoE(
        experts=keys.number("num_experts", "num_local_experts", default=128),
        active=keys.number("num_experts_per_tok", default=8),
        hidden=keys.number("moe_intermediate_size", default=768),
        act=llama.parts(plain)[1].act,
        router=router,
    )
    sparse = read_sparse(keys, len(plain.layers))
    if not sparse:
        raise SpecError(f"the configuration gives no layer experts, which is no {keys.family}; change its model_type")
    return override_all(plain, {f"layers.{i}.ffn.mixer": moe for i in sparse})


def read_sparse(keys: Keys, layers: int) -> list[int]:
    """Returns which of the layers have experts where there are any.

    Raises:
        SpecError: ``mlp_only_layers`` is no list of numbers.
    """
    kept, every = keys.take("mlp_only_layers", default=[]), keys.number("decoder_sparse_step", default=1)
    if not isinstance(kept, list) or not all(isinstance(i, int) for i in kept):
        raise SpecError(f"the configuration's mlp_only_layers are {kept!r}; expected a list of numbers of layers")
    return [i for i in range(layers) if i not in kept and (i + 1) % every == 0]


def write(spec: Decoder) -> dict[str, Any]:
    """Returns the configuration of a Qwen3-MoE spec."""
    plain, sparse, moe = mixtral.dense(spec)
    attention, _ = llama.parts(plain)
    window = write_window(spec)
    said = {
        "moe_intermediate_size": moe.hidden,
        "num_experts": moe.experts,
        "num_experts_per_tok": moe.active,
        "norm_topk_prob": isinstance(moe.router, SoftmaxOfTop),
        "router_aux_loss_coef": moe.router.balance,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [i for i in range(len(spec.layers)) if i not in sparse],
        "attention_bias": attention.bias,
        "use_sliding_window": window["sliding_window"] is not None,
    }
    return {"architectures": ["Qwen3MoeForCausalLM"], **llama.write_sizes(plain), **window, **said}


def rules(spec: Decoder) -> list[Rule]:
    """Returns the weight rules: Qwen3's, and stacks of what transformers writes expert by expert."""
    *_, moe = mixtral.dense(spec)
    named = {name: f"{name}_proj" for name in ("gate", "up", "down")}
    return [*qwen3.rules(spec), *mixtral.expert_rules("mlp", moe.experts, named)]


FAMILY = dataclasses.replace(
    qwen3.FAMILY, name="qwen3_moe", model_types=("qwen3_moe",), presets=PRESETS, read=read, write=write, rules=rules
)
