"""Zamba2: layers of Mamba-2, some of which are fed by one or two blocks of attention and MLP that they share.

Block and layer b of these take turns; each use has narrow maps of its own. Source: Glorioso et al. 2024 (Zamba2,
arXiv:2411.15242), section 2; sizes are those of the published configurations.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

from groundup.errors import SpecError
from groundup.families import mamba2
from groundup.families.family import ACTS, THEIR_ACTS, Family, Keys, head_width
from groundup.families.llama import read_rope, write_rope
from groundup.mixers.mamba2 import Mamba2
from groundup.mixers.zamba import AdaptedMLP, RecallAttention
from groundup.model.decoder import Decoder
from groundup.model.heads import Tied
from groundup.model.layer import Fed, Layer, LayerSpec, Stacked
from groundup.model.residual import Residual
from groundup.parts.init import ScaledNormal
from groundup.parts.norm import NoNorm, RMSNorm
from groundup.parts.position import NoPosition, RoPE
from groundup.rules import Rule, joined, named, split

LINEAR, HYBRID = "linear_attention", "hybrid"
KINDS = {LINEAR: LINEAR, HYBRID: HYBRID, "mamba": LINEAR}  # as newer and older configurations say it


def zamba2(
    *,
    width: int,
    layers: int,
    fed: Collection[int],
    mamba: Mamba2,
    blocks: int = 1,
    heads: int = 32,
    kv_heads: int | None = None,
    hidden: int | None = None,
    rank: int = 128,
    adapted: bool = False,
    position: RoPE | NoPosition = NoPosition(),  # noqa: B008 - a spec is a value
    bias: bool = False,
    act: str = "gelu",
    vocab: int = 32000,
    context: int = 4096,
    eps: float = 1e-5,
    deviation: float = 0.02,
    dropout: float = 0.0,
) -> Decoder:
    """Returns the spec of a Zamba2 of these sizes.

    Args:
        width: the width of the residual stream.
        layers: the number of layers.
        fed: the layers that a block feeds.
        mamba: the mixer of all layers.
        blocks: how many blocks take turns.
        heads: heads of a block's attention, which share twice the width.
        kv_heads: its heads of keys and values; None means as many.
        hidden: the width inside a block's feed-forward part; None means four times ``width``.
        rank: of the narrow maps of each use.
        adapted: whether attention has such maps too.
        position: the rotation of queries and keys.
        bias: whether the maps of the feed-forward part have biases.
        act: the activation of its gate.
        vocab: the number of token ids.
        context: the longest sequence that is meant.
        eps: of all norms of streams.
        deviation: of the first weights.
        dropout: of attention weights.
    """
    norm = RMSNorm(eps=eps)
    attention = RecallAttention(
        heads=heads,
        kv_heads=kv_heads or heads,
        head_width=head_width(2 * width, heads),
        position=position,
        dropout=dropout,
        both=norm,
        rank=rank if adapted else 0,
    )
    mlp = AdaptedMLP(hidden=hidden or 4 * width, act=act, bias=bias, rank=rank)
    mix = Residual(mamba, pre=norm)
    block = Stacked(mix=Residual(attention, pre=NoNorm()), ffn=Residual(mlp, pre=norm))
    kinds = [Fed(mix=mix, block=block.replace(tie=f"block {b}")) for b in range(blocks)]
    turns = {layer: kinds[use % blocks] for use, layer in enumerate(sorted(fed))}
    return Decoder(
        width=width,
        vocab=vocab,
        context=context,
        layers=tuple(turns.get(i, Layer(mix=mix)) for i in range(layers)),
        norm=norm,
        head=Tied(),
        init=ScaledNormal(deviation=deviation),
    )


state_space = partial(Mamba2, head_width=64, least=1e-3)

PRESETS = {
    "zamba2-1.2b": partial(
        zamba2,
        width=2048,
        layers=38,
        fed=range(5, 38, 6),
        mamba=state_space(heads=64, states=128),
        adapted=True,
        position=RoPE(),
    ),
    "zamba2-2.7b": partial(
        zamba2,
        width=2560,
        layers=54,
        fed=(*range(6, 43, 6), 47, 51),
        mamba=state_space(heads=80, states=64),
        blocks=2,
    ),
    "zamba2-7b": partial(
        zamba2,
        width=3584,
        layers=81,
        fed=(6, *range(11, 78, 6)),
        mamba=state_space(heads=112, states=64, groups=2),
        blocks=2,
        position=RoPE(),
    ),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of a Zamba2 configuration."""
    keys.only(use_long_context=False)
    keys.only(tie_word_embeddings=True)  # untied, transformers' class has a block for each use, not shared ones
    # How it is computed, of which tokens, and first weights.
    keys.skip("use_mamba_kernels", "use_mem_eff_path", "chunk_size", "num_logits_to_keep", "time_step_floor")
    keys.skip("use_conv_bias")  # transformers' class has the bias, whatever is said
    width, heads = keys.number("hidden_size", default=2560), keys.number("num_attention_heads", default=32)
    both = 2 * width
    derived = {"attention_hidden_size": both, "attention_head_dim": both // heads, "head_dim": both // heads}
    derived |= {"kv_channels": width // heads, "num_query_groups": heads}
    keys.only(**derived)
    kinds = _read_kinds(keys)
    context = keys.number("max_position_embeddings", default=4096)
    position = read_rope(keys, context=context)
    return zamba2(
        width=width,
        layers=len(kinds),
        fed=[i for i, kind in enumerate(kinds) if kind == HYBRID],
        mamba=_read_mamba(keys, width=width),
        blocks=keys.number("num_mem_blocks", default=1),
        heads=heads,
        kv_heads=keys.number("num_key_value_heads", default=None),
        hidden=keys.number("intermediate_size", "ffn_hidden_size", default=None),
        rank=keys.number("adapter_rank", default=128),
        adapted=keys.flag("use_shared_attention_adapter", default=False),
        position=position if keys.flag("use_mem_rope", default=False) else NoPosition(),
        bias=keys.flag("add_bias_linear", default=False),
        act=keys.choice("hidden_act", known=ACTS, default="gelu"),
        vocab=keys.number("vocab_size", default=32000),
        context=context,
        eps=keys.number("rms_norm_eps", default=1e-5, whole=False),
        deviation=keys.number("initializer_range", default=0.02, whole=False),
        dropout=keys.number("attention_dropout", default=0.0, whole=False),
    )


def _read_kinds(keys: Keys) -> list[str]:
    """Returns what each layer is.

    Raises:
        SpecError: the configuration has other words for it, or gives no layer a block.
    """
    layers = keys.layers("num_hidden_layers", default=54)
    usual = [HYBRID if i in (*range(6, 43, 6), 47, 51) else LINEAR for i in range(layers)]
    said = keys.take("layers_block_type", "layer_types", default=usual)
    if not isinstance(said, list) or len(said) != layers or any(kind not in KINDS for kind in said):
        raise SpecError(f"the configuration's layers_block_type is {said!r}; expected {layers} of {', '.join(KINDS)}")
    kinds = [KINDS[kind] for kind in said]
    if HYBRID not in kinds:
        raise SpecError(f"the configuration's layers_block_type has no {HYBRID}, so a block feeds no layer; add one")
    keys.only(hybrid_layer_ids=[i for i, kind in enumerate(kinds) if kind == HYBRID])
    return kinds


def _read_mamba(keys: Keys, *, width: int) -> Mamba2:
    heads, least = keys.number("n_mamba_heads", default=8), keys.positive("time_step_min", default=1e-3)
    inner = keys.number("mamba_expand", default=2) * width
    keys.only(mamba_headdim=inner // heads, time_step_limit=None)
    bias = keys.flag("add_bias_linear", default=False)
    return Mamba2(
        heads=heads,
        head_width=head_width(inner, heads),
        states=keys.number("mamba_d_state", default=64),
        groups=keys.number("mamba_ngroups", default=1),
        conv=keys.number("mamba_d_conv", default=4),
        bias=bias,
        steps=(least, keys.positive("time_step_max", default=1e-1)),
        least=least,
    )


def write(spec: Decoder) -> dict[str, Any] | None:
    """Returns the configuration of a Zamba2 spec."""
    blocks = list(dict.fromkeys(layer.block for layer in spec.layers if isinstance(layer, Fed)))
    match spec, blocks:
        case (
            Decoder(
                layers=(LayerSpec(mix=Residual(mixer=Mamba2() as mamba)), *_),
                norm=RMSNorm(eps=eps),
                init=ScaledNormal(deviation=deviation),
            ),
            [
                Stacked(
                    mix=Residual(mixer=RecallAttention(position=RoPE() | NoPosition() as position) as attention),
                    ffn=Residual(mixer=AdaptedMLP() as mlp),
                ),
                *_,
            ],
        ) if mlp.act in THEIR_ACTS:
            rope = {"rope_parameters": write_rope(position)} if isinstance(position, RoPE) else {}
            return {
                "architectures": ["Zamba2ForCausalLM"],
                "vocab_size": spec.vocab,
                "hidden_size": spec.width,
                "num_hidden_layers": len(spec.layers),
                "layers_block_type": [HYBRID if isinstance(layer, Fed) else LINEAR for layer in spec.layers],
                "num_mem_blocks": len(blocks),
                "num_attention_heads": attention.heads,
                "num_key_value_heads": attention.kv_heads,
                "attention_dropout": attention.dropout,
                "use_shared_attention_adapter": attention.rank > 0,
                "adapter_rank": mlp.rank,
                "use_mem_rope": isinstance(position, RoPE),
                **rope,
                "intermediate_size": mlp.hidden,
                "hidden_act": THEIR_ACTS[mlp.act],
                "add_bias_linear": mlp.bias,
                "n_mamba_heads": mamba.heads,
                "mamba_expand": mamba.heads * mamba.head_width // spec.width,
                "mamba_d_state": mamba.states,
                "mamba_ngroups": mamba.groups,
                "mamba_d_conv": mamba.conv,
                "time_step_min": mamba.least,
                "time_step_max": mamba.steps[1],
                "max_position_embeddings": spec.context,
                "rms_norm_eps": eps,
                "tie_word_embeddings": True,
                "initializer_range": deviation,
            }
    return None


def rules(spec: Decoder) -> list[Rule]:
    """Returns the weight rules; what uses have for themselves lies with the block's first use, in a list of all."""
    same = {"model.embed_tokens": "embed", "model.final_layernorm": "norm", "lm_head": "head"}
    made, first, use = [], {}, 0
    for i, layer in enumerate(spec.layers):
        theirs, ours = f"model.layers.{i}", f"layers.{i}"
        match layer:
            case Fed(block=block):
                owner = first.setdefault(block, i)
                made += _own_rules(f"model.layers.{owner}.shared_transformer", f"{ours}.block", use)
                made += _shared_rules(block, f"{theirs}.shared_transformer", f"{ours}.block") if owner == i else []
                same[f"{theirs}.linear"] = f"{ours}.feed"
                theirs, use = f"{theirs}.mamba_decoder", use + 1
        match layer.mix:
            case Residual(mixer=Mamba2() as mamba):
                made += mamba2.mixer_rules(mamba, f"{theirs}.mamba", f"{ours}.mix.mixer")
        same[f"{theirs}.input_layernorm"] = f"{ours}.mix.pre"
    return [*named(same), *made]


def _shared_rules(block: LayerSpec, theirs: str, ours: str) -> list[Rule]:
    """The rules of a block; maps that have narrow ones beside them lie a level deeper."""
    deeper = ""
    match block.mix:
        case Residual(mixer=RecallAttention(rank=rank)) if rank:
            deeper = ".shared"
    same = {
        f"{theirs}.input_layernorm": f"{ours}.mix.mixer.both",
        **{f"{theirs}.self_attn.{x}_proj": f"{ours}.mix.mixer.{x}{deeper}" for x in "qkv"},
        f"{theirs}.self_attn.o_proj": f"{ours}.mix.mixer.out",
        f"{theirs}.pre_ff_layernorm": f"{ours}.ffn.pre",
        f"{theirs}.feed_forward.down_proj": f"{ours}.ffn.mixer.down",
    }
    return [*named(same), *joined(f"{theirs}.feed_forward.gate_up_proj", f"{ours}.ffn.mixer", ("gate", "up"), split(2))]


def _own_rules(theirs: str, ours: str, use: int) -> list[Rule]:
    """The rules of what one use of a block has for itself."""
    mlp, list_of_mlp = f"{ours}.ffn.mixer.own", f"{theirs}.feed_forward.gate_up_proj_adapter_list.{use}"
    same = {f"{list_of_mlp}.0": f"{mlp}.low"}
    for x in "qkv":
        list_of_map = f"{theirs}.self_attn.linear_{x}_adapter_list.{use}"
        same |= {f"{list_of_map}.{i}": f"{ours}.mix.mixer.{x}.own.{end}" for i, end in enumerate(("low", "high"))}
    return [*named(same), *joined(f"{list_of_mlp}.1", mlp, ("gate", "up"), split(2))]


FAMILY = Family(
    name="zamba2", model_types=("zamba2",), presets=PRESETS, read=read, write=write, rules=rules, prefix="model."
)
