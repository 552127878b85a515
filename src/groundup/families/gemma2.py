"""Gemma 2: Gemma with norms before and after each part, scores and logits bent below a cap, every other layer local.

Source: Gemma Team 2024 (arXiv:2408.00118), section 2 and table 1; the scale of scores is that of the published
configurations (query_pre_attn_scalar).
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from groundup.families import gemma, llama
from groundup.families.family import ACTS, Keys
from groundup.families.windows import on_layers, read_windows, write_kinds, write_window
from groundup.model.decoder import Decoder
from groundup.parts.mask import Window
from groundup.parts.score import Capped, Scaled, Score
from groundup.rules import Rule, instead, rule
from groundup.specs import override, override_all

WINDOW = 4096


def gemma2(*, layers: int, scalar: float = 256, window: int = WINDOW, **sizes: Any) -> Decoder:
    """Returns the spec of a Gemma 2.

    Args:
        layers: the number of layers; the first, the third and so on are local.
        scalar: products of queries and keys are multiplied by its power -1/2.
        window: how many tokens a token sees in the local layers.
        sizes: as `groundup.families.gemma.gemma` takes them.
    """
    spec = sandwiched(gemma.gemma(layers=layers, **sizes), score=score(scalar, cap=50.0))
    return on_layers(override(spec, "head.cap", 30.0), range(0, layers, 2), mask=Window(window))


def score(scalar: float, *, cap: float | None) -> Score:
    """Returns products over the root of ``scalar``, bent below ``cap`` unless that is None."""
    return Scaled(scale=scalar**-0.5) if cap is None else Capped(scale=scalar**-0.5, cap=cap)


def sandwiched(spec: Decoder, *, score: Score) -> Decoder:
    """Returns a Gemma with norms after the parts too, and with this score."""
    posts = dict.fromkeys(("layers.*.mix.post", "layers.*.ffn.post"), spec.norm)
    return override_all(spec, {**posts, "layers.*.mix.mixer.score": score})


sizes = partial(gemma2, vocab=256000, context=8192)

PRESETS = {
    "gemma-2-2b": partial(sizes, width=2304, layers=26, heads=8, kv_heads=4, hidden=9216),
    "gemma-2-9b": partial(sizes, width=3584, layers=42, heads=16, kv_heads=8, hidden=14336),
    "gemma-2-27b": partial(
        sizes, width=4608, layers=46, heads=32, kv_heads=16, head_width=128, hidden=36864, scalar=144
    ),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of a Gemma 2 configuration."""
    keys.assume(num_key_value_heads=4, sliding_window=WINDOW, attn_logit_softcapping=50.0, final_logit_softcapping=30.0)
    spec = read_capped(keys, gemma.read_sizes(keys), cap=keys.positive("attn_logit_softcapping", default=None))
    window = keys.number("sliding_window", default=None)
    return read_windows(keys, spec, window=window, usual=lambda i: i % 2 == 0)


def read_capped(keys: Keys, spec: Decoder, *, cap: float | None) -> Decoder:
    """Returns a Gemma 2 or 3, all its layers alike, of a LLaMA and the cap of its scores."""
    act = keys.take("hidden_activation", default="gelu_pytorch_tanh")
    keys.among("hidden_act", None, act)
    changes = {
        "layers.*.ffn.mixer.act": keys.choice("hidden_activation", known=ACTS, default=act),
        "head.cap": keys.positive("final_logit_softcapping", default=None),
    }
    scalar = keys.positive("query_pre_attn_scalar", default=256)
    return sandwiched(override_all(gemma.scaled(spec), changes), score=score(scalar, cap=cap))


def write(spec: Decoder) -> dict[str, Any]:
    """Returns the configuration of a Gemma 2 spec."""
    attention, _ = llama.parts(spec)
    match attention.score:
        case Capped(cap=cap):
            return {"architectures": ["Gemma2ForCausalLM"], **write_capped(spec), "attn_logit_softcapping": cap}
    return {"architectures": ["Gemma2ForCausalLM"], **write_capped(spec), "attn_logit_softcapping": None}


def write_capped(spec: Decoder) -> dict[str, Any]:
    """Returns what the configurations of Gemma 2 and 3 say alike.

    Raises:
        SpecError: the spec is of other parts.
    """
    attention, _ = llama.parts(spec)
    said = llama.write_sizes(spec)
    said["hidden_activation"] = said.pop("hidden_act")
    scale = attention.score.scale or attention.head_width**-0.5
    return {
        **said,
        "attention_bias": attention.bias,
        "query_pre_attn_scalar": round(scale**-2),
        "final_logit_softcapping": spec.head.cap,
        "sliding_window": write_window(spec)["sliding_window"] or WINDOW,  # asked for even where no layer is local
        **write_kinds(spec),
    }


NORMS = [
    rule("model.layers.{l}.post_attention_layernorm.weight", "layers.{l}.mix.post.weight"),
    rule("model.layers.{l}.pre_feedforward_layernorm.weight", "layers.{l}.ffn.pre.weight"),
    rule("model.layers.{l}.post_feedforward_layernorm.weight", "layers.{l}.ffn.post.weight"),
]


def rules(spec: Decoder) -> list[Rule]:
    """Returns the weight rules: LLaMA's, with the norms in their places."""
    return instead(llama.rules(spec), *NORMS)


FAMILY = dataclasses.replace(
    llama.FAMILY, name="gemma2", model_types=("gemma2",), presets=PRESETS, read=read, write=write, rules=rules
)
