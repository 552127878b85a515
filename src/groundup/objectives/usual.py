"""Which objective is usual for a kind of model; importing this registers every objective by its name."""

from __future__ import annotations

from groundup.model.encoder import Encoder
from groundup.model.encoder_decoder import EncoderDecoder
from groundup.model.model import Model
from groundup.objectives.denoising import Denoising
from groundup.objectives.diffusion import MaskedDiffusion
from groundup.objectives.masked import Masked
from groundup.objectives.mixture import Mixture
from groundup.objectives.next_token import NextToken
from groundup.objectives.objective import Objective
from groundup.objectives.prefix import PrefixLM
from groundup.objectives.span_corruption import SpanCorruption
from groundup.objectives.translation import Translation

OBJECTIVES = (NextToken, Masked, MaskedDiffusion, SpanCorruption, Denoising, PrefixLM, Mixture, Translation)


def usual(model: Model) -> Objective:
    """Returns the objective that models of a kind are trained with where nobody says otherwise."""
    if isinstance(model, Encoder):
        return Masked()
    if isinstance(model, EncoderDecoder):
        return SpanCorruption()
    return NextToken()


def named(kind: str) -> Objective:
    """Returns the objective of a name, such as ``masked``, with its usual settings.

    Raises:
        ConfigError: there is none of this name.
    """
    return Objective.from_dict({"kind": kind})
