"""gpt-oss: layers that see a window and layers that see all in turn, with sinks, biases, and clamped experts.

Source: OpenAI 2025 (arXiv:2508.10925), section 2 and table 1; the rotation, the limit of the experts and the widths of
both models are those of the published configurations. Published weights of the experts are packed in four bits
(MXFP4), which is not read; transformers writes them unpacked.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from groundup.families import llama, mixtral
from groundup.families.family import Keys
from groundup.families.windows import on_layers, read_windows, write_kinds, write_window
from groundup.mixers.moe import MoE
from groundup.model.decoder import Decoder
from groundup.parts.gating import ClampedProduct
from groundup.parts.mask import Window
from groundup.parts.position import RoPE, YaRN
from groundup.parts.router import SoftmaxOfTop
from groundup.parts.score import Sink
from groundup.rules import TRANSPOSE, TURNS, Rule, chain, rule
from groundup.specs import override_all

WINDOW, LIMIT, THETA = 128, 7.0, 1.5e5


def gpt_oss(
    *,
    layers: int,
    experts: int,
    active: int = 4,
    limit: float = LIMIT,
    balance: float = mixtral.BALANCE,
    window: int = WINDOW,
    **sizes: Any,
) -> Decoder:
    """Returns the spec of a gpt-oss.

    Args:
        layers: the number of layers; the first, the third and so on are local.
        experts: how many experts a layer has.
        active: through how many of them a token goes.
        limit: beyond which what goes into an expert is cut.
        balance: the weight of the balance loss in training.
        window: how many tokens a token sees in the local layers.
        sizes: as `groundup.families.llama.llama` takes them; ``hidden`` is that of an expert.
    """
    spec = clamped(llama.llama(layers=layers, bias=True, **sizes), experts, active, limit=limit, balance=balance)
    return on_layers(spec, range(0, layers, 2), mask=Window(window))


def clamped(spec: Decoder, experts: int, active: int, *, limit: float, balance: float) -> Decoder:
    """Returns a LLaMA with sinks, and with clamped experts as wide as its feed-forward parts in place of these."""
    moe = MoE(
        experts=experts,
        active=active,
        hidden=llama.parts(spec)[1].hidden,
        act="gelu_sigmoid",
        gating=ClampedProduct(limit=limit, shift=1.0),
        bias=True,
        router=SoftmaxOfTop(balance=balance, bias=True),
    )
    return override_all(spec, {"layers.*.ffn.mixer": moe, "layers.*.mix.mixer.score": Sink()})


rope = RoPE(theta=THETA, scaling=YaRN(factor=32.0, original=4096, whole=False))
sizes = {"width": 2880, "heads": 64, "kv_heads": 8, "head_width": 64, "hidden": 2880, "vocab": 201088}
make = partial(gpt_oss, context=131072, position=rope, **sizes)

PRESETS = {
    "gpt-oss-20b": partial(make, layers=24, experts=32),
    "gpt-oss-120b": partial(make, layers=36, experts=128),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of a gpt-oss configuration."""
    keys.assume(num_key_value_heads=8, head_dim=64, attention_bias=True, sliding_window=WINDOW, rms_norm_eps=1e-5)
    keys.assume(max_position_embeddings=131072, intermediate_size=2880)
    if not {"rope_parameters", "rope_scaling"} & {name for name, said in keys.config.items() if said is not None}:
        keys.assume(rope_parameters=llama.write_rope(rope))
    keys.only(swiglu_alpha=1.702)
    keys.only(hidden_act="silu")  # of which the class makes no use
    keys.only(mlp_bias=False)
    keys.skip("initial_context_length")  # which rope_scaling says too
    keys.skip("quantization_config")  # how files are packed: their tensors say it themselves
    position = llama.read_rope(keys, context=keys.number("max_position_embeddings"), theta=THETA)
    spec = clamped(
        llama.read(keys, position=position),
        keys.number("num_local_experts", "num_experts", default=128),
        keys.number("num_experts_per_tok", "experts_per_token", default=4),
        limit=keys.positive("swiglu_limit", default=LIMIT),
        balance=mixtral.read_balance(keys),
    )
    window = keys.number("sliding_window", default=None)
    return read_windows(keys, spec, window=window, usual=lambda i: i % 2 == 0)


def write(spec: Decoder) -> dict[str, Any] | None:
    """Returns the configuration of a gpt-oss spec."""
    plain, _, moe = mixtral.dense(spec)
    attention, _ = llama.parts(plain)
    match moe.gating:
        case ClampedProduct(limit=limit):
            said = {
                "num_local_experts": moe.experts,
                "num_experts_per_tok": moe.active,
                "router_aux_loss_coef": moe.router.balance,
                "swiglu_limit": limit,
                "hidden_act": "silu",
                "attention_bias": attention.bias,
                "sliding_window": write_window(spec)["sliding_window"] or WINDOW,  # where no layer is local
            }
            return {"architectures": ["GptOssForCausalLM"], **llama.write_sizes(plain), **said, **write_kinds(spec)}
    return None


def rules(spec: Decoder) -> list[Rule]:
    """Returns the weight rules: LLaMA's, those of sinks and routers, and of experts whose two maps in take turns."""
    theirs, ours = "model.layers.{l}", "layers.{l}"
    experts, made = f"{theirs}.mlp.experts", f"{ours}.ffn.mixer.experts"
    routers = [rule(f"{theirs}.mlp.router.{x}", f"{ours}.ffn.mixer.router.score.{x}") for x in ("weight", "bias")]
    into = f"{made}.gate.{{x}} {made}.up.{{x}}"
    return [
        *llama.rules(spec),
        rule(f"{theirs}.self_attn.sinks", f"{ours}.mix.mixer.score.score"),
        *routers,
        rule(f"{experts}.gate_up_proj", into.replace("{x}", "weight"), chain(TURNS, TRANSPOSE)),
        rule(f"{experts}.gate_up_proj_bias", into.replace("{x}", "bias"), TURNS),
        rule(f"{experts}.down_proj", f"{made}.down.weight", TRANSPOSE),
        rule(f"{experts}.down_proj_bias", f"{made}.down.bias"),
    ]


FAMILY = dataclasses.replace(
    llama.FAMILY, name="gpt_oss", model_types=("gpt_oss",), presets=PRESETS, read=read, write=write, rules=rules
)
