"""RWKV-4: attention-free layers whose memory has a fixed size.

Source: Peng et al. 2023 (arXiv:2305.13048), table 2; the embedding has a norm of its own (section 3.4). transformers
halves the stream every ``rescale_every`` layers in evaluation, with the weights that write to it, to stay within
float16. Norms see that in their eps alone, which counts four times as much after each halving, and so it is read: a
configuration as it evaluates, and not as transformers trains it. The presets do not halve.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from groundup.errors import SpecError
from groundup.families.family import Family, Keys
from groundup.mixers.rwkv import RWKV4, ChannelMix
from groundup.model.decoder import Decoder
from groundup.model.heads import Tied, Untied
from groundup.model.layer import Layer
from groundup.model.residual import Residual
from groundup.parts.embed import Embed
from groundup.parts.norm import LayerNorm
from groundup.rules import BARE, Rule, named, rule

LAST_EPS = 1e-5  # of the norm before the head, whatever that of the others


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
    halving: int = 0,
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
        halving: after how many layers the stream is halved, again and again; 0 means never.
    """
    mix, ffn = RWKV4(channels=channels or width), ChannelMix(hidden=hidden or 4 * width)
    *before, last = _norms(eps, layers=layers, halving=halving)
    return Decoder(
        width=width,
        vocab=vocab,
        context=context,
        layers=tuple(Layer(mix=Residual(mix, pre=norm), ffn=Residual(ffn, pre=norm)) for norm in before),
        embed=Embed(norm=LayerNorm(eps=eps)),
        norm=last,
        head=Tied() if tied else Untied(),
    )


def _norms(eps: float, *, layers: int, halving: int) -> list[LayerNorm]:
    """Returns the norm of each layer, and the last, as they see a whole stream where theirs see a halved one."""
    halved = [i // halving if halving else 0 for i in range(layers + 1)]
    return [LayerNorm(eps=4.0**times * each) for times, each in zip(halved, (*[eps] * layers, LAST_EPS), strict=True)]


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
    halving = keys.take("rescale_every", default=6)
    if not isinstance(halving, int) or isinstance(halving, bool):
        raise SpecError(f"the configuration's rescale_every is {halving!r}; expected a number of layers, or 0")
    return rwkv4(
        width=keys.number("hidden_size", default=4096),
        layers=keys.layers("num_hidden_layers", default=32),
        channels=keys.number("attention_hidden_size", default=None),
        hidden=keys.number("intermediate_size", default=None),
        vocab=keys.number("vocab_size", default=50277),
        context=keys.number("context_length", "max_position_embeddings", default=1024),
        eps=keys.number("layer_norm_epsilon", default=1e-5, whole=False),
        tied=keys.flag("tie_word_embeddings", default=False),
        halving=max(halving, 0),
    )


def write(spec: Decoder) -> dict[str, Any] | None:
    """Returns the configuration of an RWKV-4 spec."""
    match spec:
        case Decoder(
            layers=(Layer(mix=Residual(mixer=RWKV4() as mix), ffn=Residual(mixer=ChannelMix() as ffn)), *_),
            embed=Embed(norm=LayerNorm(eps=eps)),
            norm=LayerNorm() as last,
        ):
            norms, depth = [*(layer.parts["mix"].pre for layer in spec.layers), last], len(spec.layers)
            halving = (n for n in range(depth + 1) if _norms(eps, layers=depth, halving=n) == norms)
            return {
                "architectures": ["RwkvForCausalLM"],
                "vocab_size": spec.vocab,
                "context_length": spec.context,
                "hidden_size": spec.width,
                "num_hidden_layers": len(spec.layers),
                "attention_hidden_size": mix.channels,
                "intermediate_size": ffn.hidden,
                "layer_norm_epsilon": eps,
                "rescale_every": next(halving, 0),
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
