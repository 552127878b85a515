"""The models that are held against transformers: every preset made small, and each family's own configurations.

A family's file here is named like its file in groundup.families and holds ``CASES``.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from groundup.families import family_of, family_of_config
from groundup.model.decoder import Decoder
from groundup.model.encoder import Encoder
from groundup.model.encoder_decoder import EncoderDecoder
from groundup.model.model import Model
from groundup.model.reversible import ReversibleDecoder
from laws.examples import SHRUNK
from oracle.pair import Config


def _presets() -> dict[str, Config]:
    """Returns the configuration of every small preset that transformers has a class for; those that are alike once."""
    families = {name: family_of(spec) for name, spec in SHRUNK.items()}
    there = {f"{family.name}/{name}": family.config(SHRUNK[name]) for name, family in families.items() if family}
    return {name: config for i, (name, config) in enumerate(there.items()) if config not in list(there.values())[:i]}


def _written() -> dict[str, Config]:
    files = {file.name: import_module(f"{__name__}.{file.name}") for file in iter_modules(__path__)}
    return {f"{name}/{case}": config for name, file in files.items() for case, config in file.CASES.items()}


EVERY = _presets() | _written()


def _of(kind: type[Model]) -> dict[str, Config]:
    return {name: config for name, config in EVERY.items() if family_of_config(config).kind is kind}


CASES, ENCODERS, ENCODER_DECODERS = _of(Decoder), _of(Encoder), _of(EncoderDecoder)
REFORMERS = _of(ReversibleDecoder)  # what comes later changes what they see, so they have tests of their own
