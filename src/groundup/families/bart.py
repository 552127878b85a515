"""BART: post-norm layers with biases, learnt positions of each stack, one table for both and for the head.

Source: Lewis et al. 2020 (arXiv:1910.13461), section 2.1; sizes from its published configurations. The tables of
positions have two unused rows before the first. Texts start with the end token, and a text that is as long as it may
be closes with it. Dropout inside the feed-forward part (activation_dropout) is left out.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from groundup.families.family import ACTS, THEIR_ACTS, Family, Keys
from groundup.families.transformer import transformer
from groundup.mixers.attention import Attention
from groundup.mixers.mlp import MLP
from groundup.model.decoder import Decoder
from groundup.model.encoder_decoder import EncoderDecoder
from groundup.model.heads import Head, Shifted, Tied
from groundup.model.layer import Layer
from groundup.model.residual import Residual
from groundup.parts.embed import Embed
from groundup.parts.init import ScaledNormal
from groundup.parts.norm import LayerNorm
from groundup.parts.position import Learned
from groundup.rules import ROW, Rule, named, rule

# What a file holds by the name of transformers' class: the bias of the logits, or none.
ARCHITECTURES: dict[str, Head] = {"BartForConditionalGeneration": Shifted(), "BartModel": Tied()}
OFFSET = 2

# Keys that say the same again, or how to train and classify.
OTHERS = (
    "activation_dropout",
    "classifier_dropout",
    "classif_dropout",
    "num_hidden_layers",
    "force_bos_token_to_be_generated",
    "save_step",
)


def bart(
    *,
    vocab: int = 50265,
    context: int = 1024,
    act: str = "gelu",
    scaled: bool = False,
    head: Head = Shifted(),  # noqa: B008 - a spec is a value
    start: int = 2,
    end: int | None = 2,
    last: int | None = 2,
    deviation: float = 0.02,
    **sizes: Any,
) -> EncoderDecoder:
    """Returns the spec of a BART.

    Args:
        vocab: the number of token ids.
        context: the number of learnt positions, of each stack.
        act: the activation of the feed-forward parts.
        scaled: whether the table's vectors are multiplied by the root of the width.
        head: what makes logits.
        start: the token before the target's first.
        end: the token that ends a target; None where none does.
        last: the token of a target that is as long as it may be; None means any.
        deviation: of the first weights.
        sizes: as `groundup.families.transformer.transformer` takes them, with ``first``.
    """
    embed = Embed(width_power=0.5 if scaled else 0.0, position=Learned(context, offset=OFFSET), norm=LayerNorm())
    sizes |= {"vocab": vocab, "context": context, "deviation": deviation}
    return transformer(act=act, embed=embed, head=head, start=start, end=end, last=last, **sizes)


PRESETS = {
    "bart-base": partial(bart, width=768, layers=(6, 6), heads=(12, 12), hidden=(3072, 3072)),
    "bart-large": partial(bart, width=1024, layers=(12, 12), heads=(16, 16), hidden=(4096, 4096)),
}


def read(keys: Keys) -> EncoderDecoder:
    """Returns the spec of a BART configuration."""
    keys.only(normalize_before=False, normalize_embedding=True, add_final_layer_norm=False, add_bias_logits=False)
    keys.only(static_position_embeddings=False, extra_pos_embeddings=OFFSET, tie_word_embeddings=True)
    keys.only(encoder_layerdrop=0.0, decoder_layerdrop=0.0)
    keys.skip(*OTHERS)
    return bart(
        width=keys.number("d_model", default=1024),
        layers=(keys.layers("encoder_layers", default=12), keys.layers("decoder_layers", default=12)),
        heads=(
            keys.number("encoder_attention_heads", default=16),
            keys.number("decoder_attention_heads", default=16),
        ),
        hidden=(keys.number("encoder_ffn_dim", default=4096), keys.number("decoder_ffn_dim", default=4096)),
        vocab=keys.number("vocab_size", default=50265),
        context=keys.number("max_position_embeddings", default=1024),
        act=keys.choice("activation_function", known=ACTS, default="gelu"),
        scaled=keys.flag("scale_embedding", default=False),
        head=ARCHITECTURES[keys.architecture(ARCHITECTURES)],
        start=keys.token("decoder_start_token_id", default=2) or 0,
        end=keys.token("eos_token_id", default=2),
        first=keys.token("forced_bos_token_id", default=None),
        last=keys.token("forced_eos_token_id", default=2),
        deviation=keys.number("init_std", default=0.02, whole=False),
        dropout=(
            keys.number("dropout", default=0.1, whole=False),
            keys.number("attention_dropout", default=0.0, whole=False),
        ),
    )


def write(spec: EncoderDecoder) -> dict[str, Any] | None:
    """Returns the configuration of a BART spec."""
    named = {head: name for name, head in ARCHITECTURES.items()}
    said: dict[str, Any] = {}
    for name, stack in spec.stacks.items():
        match stack.layers:
            case (Layer(mix=Residual(mixer=Attention() as attention), ffn=Residual(mixer=MLP() as mlp)), *_):
                said |= {
                    f"{name}_layers": len(stack.layers),
                    f"{name}_attention_heads": attention.heads,
                    f"{name}_ffn_dim": mlp.hidden,
                    "activation_function": THEIR_ACTS.get(mlp.act),
                    "attention_dropout": attention.dropout,
                }
    match spec:
        case EncoderDecoder(
            decoder=Decoder(head=head, init=ScaledNormal(deviation=deviation), embed=embed) as decoder
        ) if head in named and said.get("activation_function"):
            return {
                "architectures": [named[head]],
                "vocab_size": decoder.vocab,
                "d_model": decoder.width,
                **said,
                "max_position_embeddings": decoder.context,
                "scale_embedding": embed.width_power == 0.5,
                "init_std": deviation,
                "dropout": embed.dropout,
                "is_encoder_decoder": True,
                "decoder_start_token_id": spec.start,
                "eos_token_id": spec.end,
                "forced_bos_token_id": spec.first,
                "forced_eos_token_id": spec.last,
            }
    return None


def rules(spec: EncoderDecoder) -> list[Rule]:
    """Returns the weight rules: names only, for theirs and ours are laid out alike but for the bias of the logits."""
    start = "" if spec.decoder.head == Tied() else "model."
    parts = {"self_attn": "mix", "encoder_attn": "cross"}
    made = [rule(f"{start}shared.weight", "encoder.embed.weight"), rule("final_logits_bias", "decoder.head.bias", ROW)]
    for stack in spec.stacks:
        theirs, ours = f"{start}{stack}.layers.{{l}}", f"{stack}.layers.{{l}}"
        maps = {f"{theirs}.fc1": f"{ours}.ffn.mixer.up", f"{theirs}.fc2": f"{ours}.ffn.mixer.down"}
        maps[f"{theirs}.final_layer_norm"] = f"{ours}.ffn.out"
        maps[f"{start}{stack}.embed_positions"] = f"{stack}.embed.position"
        maps[f"{start}{stack}.layernorm_embedding"] = f"{stack}.embed.norm"
        for name, part in parts.items():
            maps |= {f"{theirs}.{name}.{x}_proj": f"{ours}.{part}.mixer.{x}" for x in ("q", "k", "v", "out")}
            maps[f"{theirs}.{name}_layer_norm"] = f"{ours}.{part}.out"
        made += named(maps)
    return made


FAMILY = Family(
    name="bart",
    model_types=("bart",),
    presets=PRESETS,
    read=read,
    write=write,
    rules=rules,
    kind=EncoderDecoder,
    prefix="model.",
    ignored=re.compile(r"(model\.)?(en|de)coder\.embed_tokens\.weight|lm_head\.weight"),  # copies of the table
)
