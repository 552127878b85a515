"""LLaMA 1, 2, 3, 3.1 and 3.2, SmolLM2 and TinyLlama: pre-norm layers with RMSNorm, RoPE, SwiGLU and no biases.

Sources: Touvron et al. 2023 (arXiv:2302.13971 and arXiv:2307.09288), Grattafiori et al. 2024 (arXiv:2407.21783),
Allal et al. 2025 (arXiv:2502.02737), Zhang et al. 2024 (arXiv:2401.02385).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from groundup.errors import SpecError
from groundup.families.family import ACTS, THEIR_ACTS, Family, Keys
from groundup.mixers.attention import Attention
from groundup.mixers.mlp import GatedMLP
from groundup.model.decoder import Decoder
from groundup.model.heads import Tied, Untied
from groundup.model.layer import Layer
from groundup.model.residual import Residual
from groundup.parts.init import ScaledNormal
from groundup.parts.norm import RMSNorm
from groundup.parts.position import (
    LinearScaling,
    Llama3Scaling,
    NoScaling,
    NTKScaling,
    RoPE,
    Scaling,
    YaRN,
    yarn_amplitude,
)
from groundup.rules import QKVO, Rule, named

GATED_ACTS = ACTS | {"swiglu": "silu", "geglu": "gelu"}  # a gated layer's own name says its activation
THETA = ("rope_theta", "rotary_emb_base")
FRACTION = ("partial_rotary_factor", "rotary_emb_fraction", "rotary_pct")


def llama(
    *,
    width: int,
    layers: int,
    heads: int,
    hidden: int,
    kv_heads: int | None = None,
    head_width: int | None = None,
    vocab: int = 32000,
    context: int = 2048,
    position: RoPE = RoPE(),  # noqa: B008 - a spec is a value
    eps: float = 1e-5,
    act: str = "silu",
    bias: bool = False,
    mlp_bias: bool = False,
    tied: bool = False,
    deviation: float = 0.02,
    dropout: float = 0.0,
) -> Decoder:
    """Returns the spec of a LLaMA of these sizes.

    Args:
        width: the width of the residual stream.
        layers: the number of layers.
        heads: heads of queries.
        hidden: the width inside the feed-forward part.
        kv_heads: heads of keys and values; None means as many as ``heads``.
        head_width: the width of a head; None means ``width / heads``.
        vocab: the number of token ids.
        context: the longest sequence.
        position: the rotation of queries and keys.
        eps: of the norms.
        act: the activation of the gate.
        bias: whether the four maps of attention have biases.
        mlp_bias: whether the three maps of the feed-forward part have biases.
        tied: whether the head reads the token embedding.
        deviation: of the first weights.
        dropout: of attention weights.
    """
    if head_width is None and width % heads:
        raise SpecError(f"width={width} is not a multiple of heads={heads}; change one of them, or give head_width")
    norm = RMSNorm(eps=eps)
    attention = Attention(
        heads=heads,
        kv_heads=kv_heads or heads,
        head_width=head_width or width // heads,
        position=position,
        bias=bias,
        out_bias=bias,
        dropout=dropout,
    )
    layer = Layer(
        mix=Residual(attention, pre=norm), ffn=Residual(GatedMLP(hidden=hidden, act=act, bias=mlp_bias), pre=norm)
    )
    return Decoder(
        width=width,
        vocab=vocab,
        context=context,
        layers=(layer,) * layers,
        norm=norm,
        head=Tied() if tied else Untied(),
        init=ScaledNormal(deviation=deviation),
    )


llama1 = partial(llama, eps=1e-6)
llama2 = partial(llama, context=4096)
llama3 = partial(llama, kv_heads=8, vocab=128256, context=8192, position=RoPE(theta=5e5))
llama31 = partial(llama3, context=131072, position=RoPE(theta=5e5, scaling=Llama3Scaling(factor=8.0)))
llama32 = partial(llama31, position=RoPE(theta=5e5, scaling=Llama3Scaling(factor=32.0)), tied=True)
smollm2 = partial(llama, vocab=49152, context=8192, position=RoPE(theta=1e5), tied=True)

PRESETS = {
    "llama-7b": partial(llama1, width=4096, layers=32, heads=32, hidden=11008),
    "llama-13b": partial(llama1, width=5120, layers=40, heads=40, hidden=13824),
    "llama-33b": partial(llama1, width=6656, layers=60, heads=52, hidden=17920),
    "llama-65b": partial(llama1, width=8192, layers=80, heads=64, hidden=22016),
    "llama-2-7b": partial(llama2, width=4096, layers=32, heads=32, hidden=11008),
    "llama-2-13b": partial(llama2, width=5120, layers=40, heads=40, hidden=13824),
    "llama-2-70b": partial(llama2, width=8192, layers=80, heads=64, kv_heads=8, hidden=28672),
    "llama-3-8b": partial(llama3, width=4096, layers=32, heads=32, hidden=14336),
    "llama-3-70b": partial(llama3, width=8192, layers=80, heads=64, hidden=28672),
    "llama-3.1-8b": partial(llama31, width=4096, layers=32, heads=32, hidden=14336),
    "llama-3.1-70b": partial(llama31, width=8192, layers=80, heads=64, hidden=28672),
    "llama-3.1-405b": partial(llama31, width=16384, layers=126, heads=128, hidden=53248),
    "llama-3.2-1b": partial(llama32, width=2048, layers=16, heads=32, hidden=8192),
    "llama-3.2-3b": partial(llama32, width=3072, layers=28, heads=24, hidden=8192),
    "smollm2-135m": partial(smollm2, width=576, layers=30, heads=9, kv_heads=3, hidden=1536),
    "smollm2-360m": partial(smollm2, width=960, layers=32, heads=15, kv_heads=5, hidden=2560),
    "smollm2-1.7b": partial(smollm2, width=2048, layers=24, heads=32, hidden=8192, position=RoPE(theta=1.3e5)),
    "tinyllama-1.1b": partial(llama, width=2048, layers=22, heads=32, kv_heads=4, hidden=5632),
}


def read(keys: Keys, *, position: RoPE | None = None) -> Decoder:
    """Returns the spec of a LLaMA configuration.

    Args:
        keys: the configuration.
        position: the rotation of queries and keys; None means the one that `read_rope` finds.
    """
    keys.only(rope_interleaved=False)
    keys.take("pretraining_tp", default=1)  # over how many devices its maps were cut: the order of sums, no more
    width, heads = keys.number("hidden_size"), keys.number("num_attention_heads")
    context = keys.number("max_position_embeddings", "max_sequence_length", default=2048)
    return llama(
        width=width,
        layers=keys.layers("num_hidden_layers"),
        heads=heads,
        hidden=keys.number("intermediate_size"),
        kv_heads=keys.number("num_key_value_heads", default=None),
        head_width=keys.number("head_dim", default=None),
        vocab=keys.number("vocab_size"),
        context=context,
        position=position or read_rope(keys, context=context),
        eps=keys.number("rms_norm_eps", "layer_norm_eps", default=1e-6, whole=False),
        act=keys.choice("hidden_act", known=GATED_ACTS, default="silu"),
        bias=keys.flag("attention_bias", default=False),
        mlp_bias=keys.flag("mlp_bias", default=False),
        tied=keys.flag("tie_word_embeddings", default=False),
        deviation=keys.number("initializer_range", default=0.02, whole=False),
        dropout=keys.number("attention_dropout", default=0.0, whole=False),
    )


def read_rope(keys: Keys, *, context: int, fraction: float | None = None, theta: float = 10_000.0) -> RoPE:
    """Returns the rotation of a configuration, whether it says so in rope_theta and rope_scaling or rope_parameters.

    Args:
        keys: the configuration.
        context: its longest sequence.
        fraction: how much of each head turns where it does not say; None means that the family's class turns all of
            it, whatever a configuration says.
        theta: the base of the wavelengths where it does not say.

    Raises:
        SpecError: what it says is no rotation, or contradicts itself, or is not what transformers makes of it.
    """
    given = keys.take("rope_parameters", "rope_scaling", default={})
    if not isinstance(given, Mapping):
        raise SpecError(f"the configuration's rope_parameters are {given!r}; expected a mapping with rope_type")
    said = {name: keys.take(name, default=None) for name in (*THETA, *FRACTION)}
    said = {name: value for name, value in said.items() if value is not None}
    disputed = [name for name, value in said.items() if given.get(name) not in (None, value)]
    if disputed:
        raise SpecError(f"the configuration and its rope_parameters disagree on {disputed[0]}; keep one of them")
    inside = {"model_type": keys.family, **given, **said}  # so that nothing that is missing is laid to an unsaid type
    rope = Keys(inside, family=f"{keys.family} (its rope_parameters)")
    theta = rope.positive(*THETA, default=theta)
    part = rope.positive(*FRACTION, default=fraction or 1.0)
    if fraction is None and part != 1 and "model_type" in keys.config:
        raise SpecError(
            f"the configuration turns {part} of each head, and the class of its model_type turns all of it; remove the "
            f"{' or '.join(FRACTION)} that it says, or its model_type"
        )
    position = RoPE(theta=theta, fraction=part, scaling=_scaling(rope, context=context))
    rope.done()
    return position


def _scaling(rope: Keys, *, context: int) -> Scaling:
    kind = rope.take("rope_type", "type", default="default")
    if kind == "default":
        return NoScaling()
    if kind == "linear":
        return LinearScaling(factor=rope.positive("factor"))
    if kind == "ntk":
        return NTKScaling(factor=rope.positive("factor"))
    original = rope.number("original_max_position_embeddings", default=context)
    if kind == "llama3":
        low, high = rope.positive("low_freq_factor"), rope.positive("high_freq_factor")
        return Llama3Scaling(factor=rope.positive("factor"), low=low, high=high, original=original)
    if kind == "yarn":
        factor, whole = rope.positive("factor"), rope.flag("truncate", default=True)
        ends = {"fast": rope.positive("beta_fast", default=32.0), "slow": rope.positive("beta_slow", default=1.0)}
        return YaRN(factor=factor, original=original, whole=whole, sharpness=_sharpness(rope, factor=factor), **ends)
    raise SpecError(
        f"rope_type {kind!r} is not known; known are default, linear, ntk, llama3 and yarn "
        "(dynamic and longrope change with the length of the text, so no cached key would stay right)"
    )


def _sharpness(rope: Keys, *, factor: float) -> float | None:
    """What rotated vectors are multiplied by where it is said: as a number, or as the quotient of two strengths."""
    said = rope.positive("attention_factor", default=None)
    above, below = (rope.number(name, default=0.0, whole=False) for name in ("mscale", "mscale_all_dim"))
    # One strength without the other says nothing; neither does one of zero.
    return yarn_amplitude(factor, above) / yarn_amplitude(factor, below) if said is None and above and below else said


def write_rope(position: RoPE) -> dict[str, Any]:
    """Returns the rope_parameters of a rotation.

    A fraction and NTK scaling stay unsaid, although `read_rope` understands them: transformers' LLaMA does not, and
    would turn whole heads.
    """
    said: dict[str, Any] = {"rope_theta": position.theta, "rope_type": "default"}
    match position.scaling:
        case LinearScaling(factor=factor):
            said |= {"rope_type": "linear", "factor": factor}
        case Llama3Scaling(factor=factor, low=low, high=high, original=original):
            said |= {"rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high}
            said |= {"original_max_position_embeddings": original}
        case YaRN(factor=factor, original=original, fast=fast, slow=slow, whole=whole, sharpness=sharpness):
            said |= {"rope_type": "yarn", "factor": factor, "beta_fast": fast, "beta_slow": slow}
            said |= {"original_max_position_embeddings": original}
            said |= {} if whole else {"truncate": False}
            said |= {} if sharpness is None else {"attention_factor": sharpness}
    return said


def write(spec: Decoder) -> dict[str, Any]:
    """Returns the configuration of a LLaMA spec.

    Raises:
        SpecError: the spec is of other parts; or the heads do not divide the width, which transformers refuses even
            where their width is given.
    """
    attention, mlp = parts(spec)
    if spec.width % attention.heads:
        raise SpecError(
            f"width={spec.width} is not a multiple of heads={attention.heads}, as LLaMA of transformers asks"
        )
    biases = {"attention_bias": attention.bias, "mlp_bias": mlp.bias}
    return {"architectures": ["LlamaForCausalLM"], **write_sizes(spec), **biases}


def parts(spec: Decoder) -> tuple[Attention, GatedMLP]:
    """Returns the attention and the feed-forward part of the first layer.

    Raises:
        SpecError: the spec is of other parts.
    """
    match spec.layers:
        case (Layer(mix=Residual(mixer=Attention() as attention), ffn=Residual(mixer=GatedMLP() as mlp)), *_):
            return attention, mlp
    raise SpecError("LLaMA and kin are layers of Attention and GatedMLP; see groundup.families.llama")


def write_sizes(spec: Decoder) -> dict[str, Any]:
    """Returns what the configurations of LLaMA and of the families that derive from it say alike.

    Raises:
        SpecError: the spec is of other parts.
    """
    attention, mlp = parts(spec)
    match spec, attention.position:
        case Decoder(norm=RMSNorm(eps=eps), init=ScaledNormal(deviation=deviation)), RoPE() as position if (
            mlp.act in THEIR_ACTS
        ):
            return {
                "vocab_size": spec.vocab,
                "hidden_size": spec.width,
                "intermediate_size": mlp.hidden,
                "num_hidden_layers": len(spec.layers),
                "num_attention_heads": attention.heads,
                "num_key_value_heads": attention.kv_heads,
                "head_dim": attention.head_width,
                "hidden_act": THEIR_ACTS[mlp.act],
                "max_position_embeddings": spec.context,
                "rms_norm_eps": eps,
                "rope_parameters": write_rope(position),
                "tie_word_embeddings": spec.head == Tied(cap=spec.head.cap),
                "initializer_range": deviation,
                "attention_dropout": attention.dropout,
            }
    raise SpecError("LLaMA and kin have RMSNorm, RoPE and ScaledNormal weights; see groundup.families.llama")


def rules(spec: Decoder) -> list[Rule]:
    """Returns the weight rules: names only, for theirs and ours are laid out alike."""
    theirs, ours = "model.layers.{l}", "layers.{l}"
    return named(
        {
            "model.embed_tokens": "embed",
            f"{theirs}.input_layernorm": f"{ours}.mix.pre",
            **{f"{theirs}.self_attn.{a}_proj": f"{ours}.mix.mixer.{b}" for a, b in QKVO.items()},
            f"{theirs}.post_attention_layernorm": f"{ours}.ffn.pre",
            **{f"{theirs}.mlp.{x}_proj": f"{ours}.ffn.mixer.{x}" for x in ("gate", "up", "down")},
            "model.norm": "norm",
            "lm_head": "head",
        }
    )


FAMILY = Family(
    name="llama",
    model_types=("llama", "smollm"),
    presets=PRESETS,
    read=read,
    write=write,
    rules=rules,
    prefix="model.",
    ignored=re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq"),
)
