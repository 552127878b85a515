"""Build language models from the ground up, and know before you start what it will take.

    import groundup as gu

    spec = gu.spec("llama-3-8b")                                  # any model, as a tree of frozen values
    print(gu.plan(spec, tokens=15e12, context=8192))              # what it would take
    run = gu.train("smollm2-135m", data="corpus/", budget=gu.hours(1))
    print(gu.load("runs/quickstart").generate("def fib(n):"))

Every public name is listed here and imported when it is first used; nothing else is public.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from groundup.context import Context
    from groundup.data.corpus import Corpus
    from groundup.data.loader import Loader
    from groundup.errors import GroundupError
    from groundup.evals.perplexity import perplexity
    from groundup.hub.resolve import spec
    from groundup.infer.language_model import LanguageModel
    from groundup.infer.load import load
    from groundup.infer.text_encoder import TextEncoder
    from groundup.infer.text_to_text import TextToText
    from groundup.mixers.aligned import Aligned, AttentiveGRU, Summary
    from groundup.mixers.attention import Attention
    from groundup.mixers.base import Mixer, MixerSpec
    from groundup.mixers.both_ways import BothWays
    from groundup.mixers.gated_conv import GatedConv
    from groundup.mixers.latent_attention import LatentAttention
    from groundup.mixers.mlp import MLP, GatedMLP
    from groundup.mixers.moe import MoE
    from groundup.mixers.recurrent import GRU, LSTM, RNN
    from groundup.mixers.rwkv import RWKV4, ChannelMix
    from groundup.mixers.rwkv5 import RWKV5
    from groundup.mixers.rwkv7 import RWKV7, ShiftedMLP
    from groundup.model.decoder import Decoder
    from groundup.model.encoder import Encoder
    from groundup.model.heads import Tied, Untied
    from groundup.model.layer import Layer, Parallel, Stacked, pattern
    from groundup.model.residual import Residual
    from groundup.objectives.denoising import Denoising
    from groundup.objectives.diffusion import MaskedDiffusion
    from groundup.objectives.masked import EachToken, Masked, WholeWords
    from groundup.objectives.mixture import Mixture
    from groundup.objectives.next_token import NextToken, next_token
    from groundup.objectives.prefix import PrefixLM
    from groundup.objectives.span_corruption import SpanCorruption
    from groundup.objectives.translation import Translation
    from groundup.optim.optimizers import AdamW, Muon
    from groundup.optim.schedules import WSD, Constant, Cosine
    from groundup.parts.embed import Embed
    from groundup.parts.gating import ClampedProduct, Product, Ungated
    from groundup.parts.linear import Linear
    from groundup.parts.mask import Causal, Prefix, Window
    from groundup.parts.norm import AcrossHeads, LayerNorm, NoNorm, RMSNorm
    from groundup.parts.position import (
        ALiBi,
        Learned,
        LinearScaling,
        Llama3Scaling,
        LongRoPE,
        NoPosition,
        NTKScaling,
        RoPE,
        Sinusoidal,
        YaRN,
    )
    from groundup.parts.router import GroupedSigmoid, SoftmaxOfTop, TopOfSoftmax
    from groundup.parts.score import Capped, Scaled, Sink
    from groundup.planner.plan import plan
    from groundup.planner.serving import plan_serving
    from groundup.recipes.plan_page import plan_page
    from groundup.recipes.settings import Data
    from groundup.recipes.train import train
    from groundup.state import State
    from groundup.text.tokenizer import Tokenizer
    from groundup.training.budget import hours, kwh, minutes, seconds, tokens, updates, usd
    from groundup.training.steps import steps

_HOME = {
    "groundup.context": "Context",
    "groundup.data.corpus": "Corpus",
    "groundup.data.loader": "Loader",
    "groundup.errors": "GroundupError",
    "groundup.evals.perplexity": "perplexity",
    "groundup.hub.resolve": "spec",
    "groundup.infer.language_model": "LanguageModel",
    "groundup.infer.load": "load",
    "groundup.infer.text_encoder": "TextEncoder",
    "groundup.infer.text_to_text": "TextToText",
    "groundup.mixers.aligned": "Aligned AttentiveGRU Summary",
    "groundup.mixers.attention": "Attention",
    "groundup.mixers.base": "Mixer MixerSpec",
    "groundup.mixers.both_ways": "BothWays",
    "groundup.mixers.gated_conv": "GatedConv",
    "groundup.mixers.latent_attention": "LatentAttention",
    "groundup.mixers.mlp": "GatedMLP MLP",
    "groundup.mixers.moe": "MoE",
    "groundup.mixers.recurrent": "GRU LSTM RNN",
    "groundup.mixers.rwkv": "ChannelMix RWKV4",
    "groundup.mixers.rwkv5": "RWKV5",
    "groundup.mixers.rwkv7": "RWKV7 ShiftedMLP",
    "groundup.model.decoder": "Decoder",
    "groundup.model.encoder": "Encoder",
    "groundup.model.heads": "Tied Untied",
    "groundup.model.layer": "Layer Parallel Stacked pattern",
    "groundup.model.residual": "Residual",
    "groundup.objectives.denoising": "Denoising",
    "groundup.objectives.diffusion": "MaskedDiffusion",
    "groundup.objectives.masked": "EachToken Masked WholeWords",
    "groundup.objectives.mixture": "Mixture",
    "groundup.objectives.next_token": "NextToken next_token",
    "groundup.objectives.prefix": "PrefixLM",
    "groundup.objectives.span_corruption": "SpanCorruption",
    "groundup.objectives.translation": "Translation",
    "groundup.optim.optimizers": "AdamW Muon",
    "groundup.optim.schedules": "Constant Cosine WSD",
    "groundup.parts.embed": "Embed",
    "groundup.parts.gating": "ClampedProduct Product Ungated",
    "groundup.parts.linear": "Linear",
    "groundup.parts.mask": "Causal Prefix Window",
    "groundup.parts.norm": "AcrossHeads LayerNorm NoNorm RMSNorm",
    "groundup.parts.position": (
        "ALiBi Learned LinearScaling Llama3Scaling LongRoPE NTKScaling NoPosition RoPE Sinusoidal YaRN"
    ),
    "groundup.parts.router": "GroupedSigmoid SoftmaxOfTop TopOfSoftmax",
    "groundup.parts.score": "Capped Scaled Sink",
    "groundup.planner.plan": "plan",
    "groundup.planner.serving": "plan_serving",
    "groundup.recipes.plan_page": "plan_page",
    "groundup.recipes.settings": "Data",
    "groundup.recipes.train": "train",
    "groundup.state": "State",
    "groundup.text.tokenizer": "Tokenizer",
    "groundup.training.budget": "hours kwh minutes seconds tokens updates usd",
    "groundup.training.steps": "steps",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}

__version__ = "0.1.0"
__all__ = [
    "GRU",
    "LSTM",
    "MLP",
    "RNN",
    "RWKV4",
    "RWKV5",
    "RWKV7",
    "WSD",
    "ALiBi",
    "AcrossHeads",
    "AdamW",
    "Aligned",
    "Attention",
    "AttentiveGRU",
    "BothWays",
    "Capped",
    "Causal",
    "ChannelMix",
    "ClampedProduct",
    "Constant",
    "Context",
    "Corpus",
    "Cosine",
    "Data",
    "Decoder",
    "Denoising",
    "EachToken",
    "Embed",
    "Encoder",
    "GatedConv",
    "GatedMLP",
    "GroundupError",
    "GroupedSigmoid",
    "LanguageModel",
    "LatentAttention",
    "Layer",
    "LayerNorm",
    "Learned",
    "Linear",
    "LinearScaling",
    "Llama3Scaling",
    "Loader",
    "LongRoPE",
    "Masked",
    "MaskedDiffusion",
    "Mixer",
    "MixerSpec",
    "Mixture",
    "MoE",
    "Muon",
    "NTKScaling",
    "NextToken",
    "NoNorm",
    "NoPosition",
    "Parallel",
    "Prefix",
    "PrefixLM",
    "Product",
    "RMSNorm",
    "Residual",
    "RoPE",
    "Scaled",
    "ShiftedMLP",
    "Sink",
    "Sinusoidal",
    "SoftmaxOfTop",
    "SpanCorruption",
    "Stacked",
    "State",
    "Summary",
    "TextEncoder",
    "TextToText",
    "Tied",
    "Tokenizer",
    "TopOfSoftmax",
    "Translation",
    "Ungated",
    "Untied",
    "WholeWords",
    "Window",
    "YaRN",
    "hours",
    "kwh",
    "load",
    "minutes",
    "next_token",
    "pattern",
    "perplexity",
    "plan",
    "plan_page",
    "plan_serving",
    "seconds",
    "spec",
    "steps",
    "tokens",
    "train",
    "updates",
    "usd",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'groundup' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
