"""Switch Transformers: T5 whose feed-forward parts are mixtures in some layers, with one expert for each token.

Source: Fedus et al. 2021 (arXiv:2101.03961), section 2 and table 9; that widths inside are T5's and experts have no
gates is so in the published weights. Left out: Switch-XXL, whose published count is that of gated experts. Capacity is
what transformers' class has, a number of tokens of each text; the paper's grows with the batch.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from groundup.errors import SpecError
from groundup.families import t5
from groundup.families.family import ACTS, Keys
from groundup.mixers.mlp import MLP
from groundup.mixers.moe import MoE
from groundup.model.encoder_decoder import EncoderDecoder
from groundup.model.stack import Stack
from groundup.parts.gating import Ungated
from groundup.parts.router import TopOfSoftmax
from groundup.rules import STACK, Rule, rule
from groundup.specs import override_all

STACKS = ("encoder", "decoder")


def switch(
    *, hidden: int, layers: int, experts: int, router: TopOfSoftmax, act: str = "relu", sparse: int, **sizes: Any
) -> EncoderDecoder:
    """Returns the spec of a Switch Transformer.

    Args:
        hidden: the width inside feed-forward parts and experts.
        layers: the number of the encoder's layers, and of the decoder's.
        experts: how many experts a sparse layer has.
        router: which token goes where.
        act: the activation of feed-forward parts and experts.
        sparse: how many layers of each have experts.
        sizes: as `groundup.families.t5.t5` takes them.
    """
    spec = t5.t5(hidden=hidden, layers=layers, act=act, **sizes)
    return routed(spec, experts=experts, router=router, sparse=dict.fromkeys(STACKS, sparse))


def routed(spec: EncoderDecoder, *, experts: int, router: TopOfSoftmax, sparse: dict[str, int]) -> EncoderDecoder:
    """Returns a T5 with experts, each as large as its feed-forward part, in so many layers of each stack.

    Raises:
        SpecError: no layer would have any.
    """
    mlp = t5.mixer_of(spec)
    assert isinstance(mlp, MLP)
    moe = MoE(experts=experts, active=1, hidden=mlp.hidden, act=mlp.act, gating=Ungated(), router=router)
    places = [f"{name}.layers.{i}" for name in STACKS for i in places_of(sparse[name], spec.stacks[name])]
    if not places:
        raise SpecError("a Switch Transformer without experts is a T5; give it sparse layers")
    return override_all(spec, {f"{place}.ffn.mixer": moe for place in places})


def places_of(count: int, stack: Stack) -> list[int]:
    """Returns which layers of a stack have experts if ``count`` shall, as transformers' class spreads them."""
    step = _step(count, stack)
    return [i for i in range(len(stack.layers)) if step == 1 or (step and i % step == 1)]


def _step(count: int, stack: Stack) -> int:
    """The layers from one with experts to the next; 0 where more are asked for than there are, and none has any."""
    return len(stack.layers) // count if count else len(stack.layers)


first = partial(TopOfSoftmax, capacity=64, balance=0.01)
base = partial(switch, width=768, layers=12, heads=12, hidden=3072, router=first(), sparse=6)

PRESETS = {
    **{f"switch-base-{experts}": partial(base, experts=experts) for experts in (8, 16, 32, 64, 128, 256)},
    "switch-large-128": partial(
        switch, width=1024, layers=24, heads=16, hidden=4096, experts=128, router=first(), sparse=12
    ),
    "switch-c-2048": partial(
        switch, width=2080, layers=15, heads=32, hidden=6144, experts=2048, router=first(), sparse=15
    ),
}


def read(keys: Keys) -> EncoderDecoder:
    """Returns the spec of a Switch Transformer's configuration."""
    keys.assume(d_model=768, num_layers=12, num_decoder_layers=12, num_heads=12)  # also where the encoder has others
    keys.choice("dense_act_fn", known=ACTS, default="relu")
    keys.assume(feed_forward_proj=keys.take("dense_act_fn", default="relu"))
    keys.only(feed_forward_proj=keys.take("dense_act_fn", default="relu"), router_dtype="float32")
    keys.only(router_type="tokens_masked", is_gated_act=False)
    # Untied, transformers' class has a table of each stack besides the head's; it has no word for the scale alone.
    keys.only(tie_word_embeddings=True, scale_decoder_outputs=True)
    keys.flag("router_ignore_padding_tokens", default=False)  # of which the class makes no use
    keys.flag("add_router_probs", default=False)
    keys.among("add_cross_attention", False, True)
    router = TopOfSoftmax(
        capacity=keys.number("expert_capacity", default=64),
        bias=keys.flag("router_bias", default=False),
        jitter=keys.number("router_jitter_noise", default=0.01, whole=False),
        balance=keys.number("router_aux_loss_coef", default=0.001, whole=False),
        z=keys.number("router_z_loss_coef", default=0.001, whole=False),
    )
    spec = t5.read(keys)
    sparse = {name: _count(keys, f"num_sparse_{name}_layers") for name in STACKS}
    for name, stack in spec.stacks.items():  # which the class makes of the number of layers
        keys.among(f"{name}_sparse_step", _step(sparse[name], stack))
    return routed(spec, experts=keys.number("num_experts", default=8), router=router, sparse=sparse)


def _count(keys: Keys, name: str) -> int:
    count = keys.take(name, default=3)
    if not isinstance(count, int) or count < 0:
        raise SpecError(f"the configuration's {name} is {count!r}; expected a whole number of at least 0")
    return count


def write(spec: EncoderDecoder) -> dict[str, Any]:
    """Returns the configuration of a Switch Transformer's spec."""
    sparse, moe = _sparse(spec)
    places = [f"{name}.layers.{i}.ffn.mixer" for name, layers in sparse.items() for i in layers]
    said = t5.write(override_all(spec, dict.fromkeys(places, MLP(hidden=moe.hidden, act=moe.act))))
    said["dense_act_fn"] = said.pop("feed_forward_proj")
    router = moe.router
    return {
        **said,
        "architectures": ["SwitchTransformersForConditionalGeneration"],
        "num_experts": moe.experts,
        "expert_capacity": router.capacity,
        "router_bias": router.bias,
        "router_jitter_noise": router.jitter,
        "router_aux_loss_coef": router.balance,
        "router_z_loss_coef": router.z,
        **{f"num_sparse_{name}_layers": _spread(layers, spec.stacks[name]) for name, layers in sparse.items()},
    }


def _sparse(spec: EncoderDecoder) -> tuple[dict[str, list[int]], MoE]:
    """The layers of each stack that have experts, and the experts of the first of them."""
    parts = {name: [layer.ffn and layer.ffn.mixer for layer in stack.layers] for name, stack in spec.stacks.items()}
    found = [part for stack in parts.values() for part in stack if isinstance(part, MoE)]
    if not found:
        raise SpecError("Switch Transformers have layers of MoE; see groundup.families.switch_transformers")
    return {name: [i for i, part in enumerate(s) if isinstance(part, MoE)] for name, s in parts.items()}, found[0]


def _spread(sparse: list[int], stack: Stack) -> int:
    """The number of sparse layers that transformers' class spreads like these."""
    counts = (len(sparse), *range(len(stack.layers) + 2))
    count = next((n for n in counts if places_of(n, stack) == sparse), None)
    if count is None:
        raise SpecError(f"Switch Transformers of transformers have no experts in layers {sparse} alone")
    return count


def rules(spec: EncoderDecoder) -> list[Rule]:
    """Returns the weight rules: T5's, and stacks of what transformers writes expert by expert."""
    experts = _sparse(spec)[1].experts
    made = t5.rules(spec, ffn="mlp")
    for stack, place in (("encoder", 1), ("decoder", 2)):
        theirs, ours = f"{stack}.block.{{l}}.layer.{place}.mlp", f"{stack}.layers.{{l}}.ffn.mixer"
        made += [rule(f"{theirs}.router.classifier.{x}", f"{ours}.router.score.{x}") for x in ("weight", "bias")]
        for a, b in (("wi", "up"), ("wo", "down")):
            each = " ".join(f"{theirs}.experts.expert_{e}.{a}.weight" for e in range(experts))
            made.append(rule(each, f"{ours}.experts.{b}.weight", STACK))
    return made


FAMILY = dataclasses.replace(
    t5.FAMILY,
    name="switch_transformers",
    model_types=("switch_transformers",),
    presets=PRESETS,
    read=read,
    write=write,
    rules=rules,
)
