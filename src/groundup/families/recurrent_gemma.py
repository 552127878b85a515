"""RecurrentGemma: Griffin's recurrent blocks and local attention in turn, with Gemma's norms and embeddings.

Sources: De et al. 2024 (Griffin, arXiv:2402.19427), section 2; Botev et al. 2024 (RecurrentGemma, arXiv:2404.07839),
table 1. The root of the width that scales embeddings is exact here; transformers rounds it to bfloat16.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from groundup.errors import SpecError
from groundup.families.family import ACTS, THEIR_ACTS, Family, Keys, head_width
from groundup.families.llama import read_rope
from groundup.mixers.attention import Attention
from groundup.mixers.griffin import RGLRU
from groundup.mixers.mlp import GatedMLP
from groundup.model.decoder import Decoder
from groundup.model.heads import Tied, Untied
from groundup.model.layer import Layer, LayerSpec
from groundup.model.residual import Residual
from groundup.parts.embed import Embed
from groundup.parts.mask import Window
from groundup.parts.norm import RMSNorm
from groundup.parts.position import NoScaling, RoPE
from groundup.rules import QKVO, SQUEEZE, Op, Rule, named, rule

CONTEXT = 8192  # tokens that the published models were trained on; a configuration does not say
RECURRENT, ATTENTION = "recurrent", "attention"


def recurrent_gemma(
    *,
    width: int,
    layers: int,
    heads: int,
    hidden: int,
    kv_heads: int = 1,
    channels: int | None = None,
    window: int = 2048,
    kinds: Sequence[str] = (RECURRENT, RECURRENT, ATTENTION),
    conv: int = 4,
    vocab: int = 256000,
    context: int = CONTEXT,
    position: RoPE = RoPE(fraction=0.5),  # noqa: B008 - a spec is a value
    act: str = "gelu_tanh",
    bias: bool = False,
    eps: float = 1e-6,
    cap: float = 30.0,
    tied: bool = True,
    dropout: float = 0.0,
) -> Decoder:
    """Returns the spec of a RecurrentGemma of these sizes.

    Args:
        width: the width of the residual stream.
        layers: the number of layers.
        heads: heads of queries, each ``width / heads`` wide, and blocks of the recurrence's gates.
        hidden: the width inside the feed-forward part.
        kv_heads: heads of keys and values.
        channels: the width of the recurrence; None means ``width``.
        window: how many tokens attention sees.
        kinds: what the layers are, over and over.
        conv: taps of the convolution before the recurrence.
        vocab: the number of token ids.
        context: the longest sequence that is meant.
        position: the rotation of queries and keys.
        act: the activation of all gates.
        bias: whether queries, keys and values have biases.
        eps: of the norms.
        cap: what logits are bent to stay below.
        tied: whether the head reads the token embedding.
        dropout: of attention weights.
    """
    norm = RMSNorm(eps=eps, offset=1.0)
    attention = Attention(
        heads=heads,
        kv_heads=kv_heads,
        head_width=head_width(width, heads),
        mask=Window(window),
        position=position,
        bias=bias,
        out_bias=True,
        dropout=dropout,
    )
    mixers = {RECURRENT: RGLRU(channels=channels or width, heads=heads, conv=conv, act=act), ATTENTION: attention}
    ffn = Residual(GatedMLP(hidden=hidden, act=act, bias=True), pre=norm)
    made = {kind: Layer(mix=Residual(mixer, pre=norm), ffn=ffn) for kind, mixer in mixers.items()}
    return Decoder(
        width=width,
        vocab=vocab,
        context=context,
        layers=tuple(made[kinds[i % len(kinds)]] for i in range(layers)),
        embed=Embed(width_power=0.5),
        norm=norm,
        head=Tied(cap=cap) if tied else Untied(cap=cap),
    )


PRESETS = {
    "recurrentgemma-2b": partial(recurrent_gemma, width=2560, layers=26, heads=10, hidden=7680),
    "recurrentgemma-9b": partial(recurrent_gemma, width=4096, layers=38, heads=16, hidden=12288),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of a RecurrentGemma configuration."""
    width, heads = keys.number("hidden_size", default=2560), keys.number("num_attention_heads", default=10)
    keys.only(head_dim=width // heads, embeddings_scale_by_sqrt_dim=True)
    keys.skip("w_init_variance_scale", "final_w_init_variance_scale")  # first weights
    hidden, layers = keys.number("intermediate_size", default=7680), keys.layers("num_hidden_layers", default=26)
    if hidden % 2:
        raise SpecError(f"the configuration's intermediate_size is {hidden}; expected twice the width inside the MLP")
    kinds = keys.take("block_types", default=[RECURRENT, RECURRENT, ATTENTION])
    if not isinstance(kinds, list) or not kinds or any(kind not in (RECURRENT, ATTENTION) for kind in kinds):
        raise SpecError(
            f"the configuration's block_types are {kinds!r}; expected a list of {RECURRENT} and {ATTENTION}"
        )
    context = keys.number("max_position_embeddings", default=CONTEXT)
    return recurrent_gemma(
        width=width,
        layers=layers,
        heads=heads,
        hidden=hidden // 2,
        kv_heads=keys.number("num_key_value_heads", default=heads),
        channels=keys.number("lru_width", default=None),
        window=keys.number("attention_window_size", "sliding_window", default=2048),
        kinds=kinds,
        conv=keys.number("conv1d_width", default=4),
        vocab=keys.number("vocab_size", default=256000),
        context=context,
        position=read_rope(keys, context=context, fraction=0.5),
        act=keys.choice("hidden_activation", known=ACTS, default="gelu_pytorch_tanh"),
        bias=keys.flag("attention_bias", default=False),
        eps=keys.number("rms_norm_eps", default=1e-6, whole=False),
        cap=keys.positive("logits_soft_cap", default=30.0),
        tied=keys.flag("tie_word_embeddings", default=True),
        dropout=keys.number("attention_dropout", default=0.0, whole=False),
    )


def write(spec: Decoder) -> dict[str, Any] | None:
    """Returns the configuration of a RecurrentGemma spec."""
    mixers = [layer.mix.mixer for layer in spec.layers if layer.mix]
    recurrence = next((mixer for mixer in mixers if isinstance(mixer, RGLRU)), None)
    attention = next((mixer for mixer in mixers if isinstance(mixer, Attention)), None)
    match spec:
        case Decoder(
            layers=(Layer(ffn=Residual(mixer=GatedMLP() as mlp)), *_),
            norm=RMSNorm(eps=eps),
            head=Tied(cap=float() as cap) | Untied(cap=float() as cap),
        ) if mlp.act in THEIR_ACTS and len(mixers) == len(spec.layers) and (recurrence or attention):
            return {
                "architectures": ["RecurrentGemmaForCausalLM"],
                "vocab_size": spec.vocab,
                "hidden_size": spec.width,
                "intermediate_size": 2 * mlp.hidden,
                "num_hidden_layers": len(spec.layers),
                "block_types": [RECURRENT if isinstance(mixer, RGLRU) else ATTENTION for mixer in mixers],
                "hidden_activation": THEIR_ACTS[mlp.act],
                "max_position_embeddings": spec.context,
                "rms_norm_eps": eps,
                "logits_soft_cap": cap,
                "tie_word_embeddings": isinstance(spec.head, Tied),
                **_said_of_recurrence(recurrence),
                **_said_of_attention(attention),
            }
    return None


def _said_of_recurrence(mixer: RGLRU | None) -> dict[str, Any]:
    """What says how the recurrent layers are, if there are any."""
    if mixer is None:
        return {}
    return {"num_attention_heads": mixer.heads, "lru_width": mixer.channels, "conv1d_width": mixer.conv}


def _said_of_attention(mixer: Attention | None) -> dict[str, Any]:
    """What says how the layers with attention are, if there are any."""
    match mixer:
        case Attention(mask=Window(size=window), position=RoPE(scaling=NoScaling()) as position):
            return {
                "num_attention_heads": mixer.heads,
                "num_key_value_heads": mixer.kv_heads,
                "attention_window_size": window,
                "attention_bias": mixer.bias,
                "attention_dropout": mixer.dropout,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": position.theta,
                    "partial_rotary_factor": position.fraction,
                },
            }
    return {}


def rules(spec: Decoder) -> list[Rule]:
    """Returns the weight rules; layers of either kind have their own, for both have an ``out``."""
    theirs, ours = "model.layers.{l}", "layers.{l}"
    same = {
        "model.embed_tokens": "embed",
        f"{theirs}.temporal_pre_norm": f"{ours}.mix.pre",
        f"{theirs}.channel_pre_norm": f"{ours}.ffn.pre",
        **{f"{theirs}.mlp_block.{x}_proj": f"{ours}.ffn.mixer.{x}" for x in ("gate", "up", "down")},
        "model.final_norm": "norm",
        "lm_head": "head",
    }
    return [*named(same), *(part for i, layer in enumerate(spec.layers) for part in _mixer_rules(layer, i))]


def _mixer_rules(layer: LayerSpec, i: int) -> list[Rule]:
    theirs, ours = f"model.layers.{i}.temporal_block", f"layers.{i}.mix.mixer"
    match layer.mix:
        case Residual(mixer=RGLRU(heads=heads)):
            maps, gates = {"x": "x", "y": "gate", "out": "out"}, {"input": "enter", "recurrent": "forget"}
            return [
                *named({f"{theirs}.linear_{a}": f"{ours}.{b}" for a, b in maps.items()}),
                rule(f"{theirs}.conv_1d.weight", f"{ours}.conv.weight", SQUEEZE),
                rule(f"{theirs}.conv_1d.bias", f"{ours}.conv.bias"),
                rule(f"{theirs}.rg_lru.recurrent_param", f"{ours}.decay"),
                *(rule(f"{theirs}.rg_lru.{a}_gate_weight", f"{ours}.{b}.weight") for a, b in gates.items()),
                *(rule(f"{theirs}.rg_lru.{a}_gate_bias", f"{ours}.{b}.bias", _flat(heads)) for a, b in gates.items()),
            ]
    return named({f"{theirs}.{a}_proj": f"{ours}.{b}" for a, b in QKVO.items()})


def _flat(heads: int) -> Op:
    """Returns the operation that joins the biases of all heads, (H, E / H), to one vector."""
    return Op(lambda ts: [ts[0].flatten()], lambda ts: [ts[0].unflatten(0, (heads, -1))])


FAMILY = Family(
    name="recurrent_gemma",
    model_types=("recurrent_gemma",),
    presets=PRESETS,
    read=read,
    write=write,
    rules=rules,
    prefix="model.",
)
