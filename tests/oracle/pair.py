"""The same model twice: as transformers has it, and as it is read from the folder that transformers wrote."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from groundup.families.family import Family
from groundup.hub import folder
from groundup.hub.spec_file import family_of_file

Config = dict[str, Any]  # a config.json

transformers.logging.disable_progress_bar()

TOLERANCE = 1e-5
# By model_type, where float32 is looser: a head that reads next to nothing is normed to full size, rounding and all.
# Transformers' own two forms of that layer, in chunks and by token, differ by 1.4e-4 in logits, more in gradients.
# Qwen3-Next has the same layer: its cases norm with a larger eps.
# Jamba norms steps, b and c, however small, Zamba2 what a block without residuals makes: in float32 theirs and ours
# are about as far from ours in float64, 2e-5 to 1e-4.
LOOSER = {"olmo_hybrid": 1e-3, "jamba": 1e-4, "qwen3_next": 1e-4, "zamba2": 1e-4}
# Theirs give padding no place, or its vector no gradient, wherever it stands.
MINDING_PADDING = ("longformer", "roberta", "bart")


@dataclass
class Pair:
    theirs: Any  # a PreTrainedModel, whose methods no type checker finds
    ours: Any
    folder: Path

    @property
    def tolerance(self) -> float:
        return LOOSER.get(self.theirs.config.model_type, TOLERANCE)

    @property
    def family(self) -> Family:
        """The family that read the folder."""
        return family_of_file(self.folder / "config.json")

    @property
    def vocab(self) -> int:
        *_, writing = self.ours.spec.stacks.values()
        return writing.vocab

    @property
    def rows(self) -> int:
        """How many rows theirs can read on with: the class of RWKV mixes rows up at single tokens (5.23)."""
        return 1 if self.theirs.config.model_type == "rwkv" else 2

    def ids(self, rows: int, tokens: int, seed: int = 0) -> Tensor:
        ids = torch.randint(self.vocab, (rows, tokens), generator=torch.Generator().manual_seed(seed))
        minded = self.theirs.config.model_type in MINDING_PADDING
        padding = self.theirs.config.pad_token_id if minded else None
        return ids if padding is None else ids.where(ids != padding, padding + 1)


def make(config: Config, where: Path, *, seed: int = 0) -> Pair:
    """Returns a pair with random weights large enough that every part of the model is heard in the logits."""
    theirs = class_of(config)(theirs_of(config)).to(torch.float32).eval()
    if config["model_type"] == "mt5" or getattr(theirs.config, "scale_decoder_outputs", True) is False:  # as v1.1 does
        theirs.lm_head.weight = nn.Parameter(theirs.lm_head.weight.clone())  # theirs ties it whatever is said
    for name in config.keys() & {"forced_bos_token_id", "forced_eos_token_id"}:
        setattr(theirs.generation_config, name, config[name])  # forgotten by one that was not read from a file
    randomise(theirs, seed=seed)
    theirs.save_pretrained(where)
    (where / "config.json").write_text(json.dumps(config))  # as it was given, not as transformers rewrites it
    return Pair(theirs, folder.read(where), where)


def class_of(config: Config) -> Any:
    """Returns the class that a configuration names, or that of a language model of its type."""
    named = config.get("architectures")
    if named:
        return getattr(transformers, named[0])
    return transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(theirs_of(config))]


def theirs_of(config: Config) -> transformers.PreTrainedConfig:
    return transformers.AutoConfig.for_model(**json.loads(json.dumps(config)))


def read_on(theirs: Any, ids: Tensor, cache: Any = None) -> tuple[Tensor, Any]:
    """Returns the logits of more tokens and the cache, whatever their class calls it."""
    parameters = inspect.signature(theirs.forward).parameters
    if "state" in parameters:  # RWKV's is a list of tensors
        told = theirs(ids, use_cache=True, state=cache)
        return told.logits, told.state
    name = "cache_params" if "cache_params" in parameters else "past_key_values"
    cache = transformers.DynamicCache(config=theirs.config) if cache is None else cache
    return theirs(ids, use_cache=True, **{name: cache}).logits, cache


def randomise(model: nn.Module, *, seed: int) -> None:
    """Draws all matrices, and moves norms, biases and other vectors from where they start, given ones too."""
    generator = torch.Generator().manual_seed(seed)
    given = (buffer for name, buffer in model.named_buffers() if name == "final_logits_bias")
    for weight in (*model.parameters(), *given):
        start, spread = (weight, 0.1) if weight.ndim == 1 else (0, weight.shape[-1] ** -0.5)
        with torch.no_grad():
            weight.copy_(start + spread * torch.randn(weight.shape, generator=generator))


def distance(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return (a - b).abs().max().item()
