"""RWKV-4: attention-free layers whose memory has a fixed size.

Source: Peng et al. 2023 (arXiv:2305.13048), table 2; the embedding has a norm of its own (section 3.4). transformers
halves the stream every ``rescale_every`` layers while it generates, with the weights that write to it, to stay within
float16; norms do not see that, so it is read as a matter of precision.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from groundup.families.family import Family, Keys
from groundup.mixers.rwkv import RWKV4, ChannelMix
from groundup.model.decoder import Decoder
from groundup.model.heads import Tied, Untied
from groundup.model.layer import Layer
from groundup.model.residual import Residual
from groundup.parts.embed import Embed
from groundup.parts.norm import LayerNorm
from groundup.rules import BARE, Rule, named, rule


def rwkv4(
    *,
    width: int,
    layers: int,
    channels: int | None = None,
    hidden: int | None = None,
    vocab: int = 50277,
    context: int = 1024,
    eps: float = 1e-5,
    tied: bool = False,
) -> Decoder:
    """Returns the spec of an RWKV-4 of these sizes.

    Args:
        width: the width of the residual stream.
        layers: the number of layers.
        channels: the width of keys and values; None means ``width``.
        hidden: the width inside the channel mixing; None means four times ``width``.
        vocab: the number of token ids.
        context: the tokens it was trained to read; it reads on beyond them.
        eps: of the norms but the last, whose is 1e-5.
        tied: whether the head reads the token embedding.
    """
    norm = LayerNorm(eps=eps)
    layer = Layer(
        mix=Residual(RWKV4(channels=channels or width), pre=norm),
        ffn=Residual(ChannelMix(hidden=hidden or 4 * width), pre=norm),
    )
    return Decoder(
        width=width,
        vocab=vocab,
        context=context,
        layers=(layer,) * layers,
        embed=Embed(norm=norm),
        norm=LayerNorm(),
        head=Tied() if tied else Untied(),
    )


PRESETS = {
    "rwkv-4-169m": partial(rwkv4, width=768, layers=12),
    "rwkv-4-430m": partial(rwkv4, width=1024, layers=24),
    "rwkv-4-1b5": partial(rwkv4, width=2048, layers=24),
    "rwkv-4-3b": partial(rwkv4, width=2560, layers=32),
    "rwkv-4-7b": partial(rwkv4, width=4096, layers=32),
    "rwkv-4-14b": partial(rwkv4, width=5120, layers=40),
}


def read(keys: Keys) -> Decoder:
    """Returns the spec of an RWKV-4 configuration."""
    keys.skip("rescale_every")
    return rwkv4(
        width=keys.number("hidden_size", default=4096),
        layers=keys.layers("num_hidden_layers", default=32),
        channels=keys.number("attention_hidden_size", default=None),
        hidden=keys.number("intermediate_size", default=None),
        vocab=keys.number("vocab_size", default=50277),
        context=keys.number("context_length", "max_position_embeddings", default=1024),
        eps=keys.number("layer_norm_epsilon", default=1e-5, whole=False),
        tied=keys.flag("tie_word_embeddings", default=False),
    )


def write(spec: Decoder) -> dict[str, Any] | None:
    """Returns the configuration of an RWKV-4 spec."""
    match spec:
        case Decoder(
            layers=(Layer(mix=Residual(mixer=RWKV4() as mix), ffn=Residual(mixer=ChannelMix() as ffn)), *_),
            embed=Embed(norm=LayerNorm(eps=eps)),
        ):
            return {
                "architectures": ["RwkvForCausalLM"],
                "vocab_size": spec.vocab,
                "context_length": spec.context,
                "hidden_size": spec.width,
                "num_hidden_layers": len(spec.layers),
                "attention_hidden_size": mix.channels,
                "intermediate_size": ffn.hidden,
                "layer_norm_epsilon": eps,
                "tie_word_embeddings": spec.head == Tied(),
            }
    return None


def rules(spec: Decoder) -> list[Rule]:
    """Returns the weight rules; their vectors have two axes of length 1 in front."""
    theirs, ours = "rwkv.blocks.{l}", "layers.{l}"
    mixes = [
        *((f"attention.time_mix_{a}", f"mix.mixer.mix_{a[0]}") for a in ("receptance", "key", "value")),
        *((f"feed_forward.time_mix_{a}", f"ffn.mixer.mix_{a[0]}") for a in ("receptance", "key")),
    ]
    same = {
        "rwkv.embeddings": "embed",
        "rwkv.blocks.0.pre_ln": "embed.norm",
        f"{theirs}.ln1": f"{ours}.mix.pre",
        **{f"{theirs}.attention.{a}": f"{ours}.mix.mixer.{a[0]}" for a in ("receptance", "key", "value")},
        f"{theirs}.attention.output": f"{ours}.mix.mixer.out",
        f"{theirs}.ln2": f"{ours}.ffn.pre",
        f"{theirs}.feed_forward.receptance": f"{ours}.ffn.mixer.gate",
        f"{theirs}.feed_forward.key": f"{ours}.ffn.mixer.up",
        f"{theirs}.feed_forward.value": f"{ours}.ffn.mixer.down",
        "rwkv.ln_out": "norm",
        "head": "head",
    }
    return [
        *named(same),
        rule(f"{theirs}.attention.time_decay", f"{ours}.mix.mixer.decay"),
        rule(f"{theirs}.attention.time_first", f"{ours}.mix.mixer.bonus"),
        *(rule(f"{theirs}.{a}", f"{ours}.{b}", BARE) for a, b in mixes),
    ]


FAMILY = Family(
    name="rwkv", model_types=("rwkv",), presets=PRESETS, read=read, write=write, rules=rules, prefix="rwkv."
)
