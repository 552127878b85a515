"""mT5: T5 v1.1 with a vocabulary of 101 languages.

Source: Xue et al. 2021 (arXiv:2010.11934), section 3. Its class in transformers never scales what the head reads.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from groundup.families import t5
from groundup.families.family import Keys
from groundup.model.encoder_decoder import EncoderDecoder
from groundup.specs import override

PRESETS = {f"mt5-{size}": partial(make, vocab=250112) for size, make in t5.SIZES_V11.items()}


def read(keys: Keys) -> EncoderDecoder:
    """Returns the spec of an mT5 configuration."""
    keys.assume(feed_forward_proj="gated-gelu", vocab_size=250112, d_ff=1024, num_layers=8, num_heads=6)
    spec = t5.read(keys)
    return override(spec, "decoder.head", t5.BARE) if spec.decoder.head.tied else spec


def write(spec: EncoderDecoder) -> dict[str, Any]:
    """Returns the configuration of an mT5 spec."""
    return {**t5.write(spec), "architectures": ["MT5ForConditionalGeneration"]}


FAMILY = dataclasses.replace(t5.FAMILY, name="mt5", model_types=("mt5",), presets=PRESETS, read=read, write=write)
