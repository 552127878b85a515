"""Any MODEL with its weights and its tokenizer, as the class that its users call."""

from __future__ import annotations

from pathlib import Path

import torch

from groundup.devices import pick_device
from groundup.errors import ConfigError, ModelError, nearest
from groundup.hub import resolve
from groundup.hub.frame import NO_FRAME, Frame, read_frame
from groundup.hub.sentences import Sentences, read_sentences
from groundup.infer.language_model import LanguageModel
from groundup.infer.text_encoder import TextEncoder
from groundup.infer.text_to_text import TextToText
from groundup.model.decoder import DecoderModel
from groundup.model.encoder import EncoderModel
from groundup.model.encoder_decoder import EncoderDecoderModel
from groundup.model.model import ModelModule
from groundup.text.tokenizer import Tokenizer

DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
}


def load(
    model: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    revision: str | None = None,
    offline: bool = False,
) -> LanguageModel:
    """Returns a MODEL with its weights and its tokenizer, in evaluation mode.

    Args:
        model: a folder (a run, a checkpoint, a Hugging Face folder) or a hub id.
        dtype: of the weights, such as ``bf16``; None means the one in which most of them are stored.
        device: such as ``cuda``; None means the accelerator where there is one, the processor elsewhere.
        revision: the branch, tag or commit of a hub id; None means the main branch.
        offline: whether a hub id may only come from the cache.

    Raises:
        ModelError: there is no such model; it has no weights, as a preset or a spec; or it is an encoder that makes
            vectors of texts in a way that is not known.
        WeightsError: the weights are missing, damaged or of another model.
        CheckpointError: a file is not what the checksums say.
        TextError: the tokenizer is damaged.
        ConfigError: no such dtype, or no such device on this machine.
    """
    device, kind = pick_device(device), _dtype(dtype)
    found = resolve.find(model, revision=revision, offline=offline)
    module = resolve.weights(found, dtype=kind, device=device)
    tokenizer = None if found.tokenizer is None else Tokenizer.load(found.tokenizer)
    said, frame = Sentences(), NO_FRAME
    if found.weights is not None:
        frame = read_frame(found.weights, vocab=module.spec.predictor.vocab)
        said = read_sentences(found.weights) if isinstance(module, EncoderModel) else said
    return as_called(module, tokenizer=tokenizer, frame=frame, sentences=said)


def as_called(
    module: ModelModule,
    *,
    tokenizer: Tokenizer | None,
    frame: Frame = NO_FRAME,
    sentences: Sentences = Sentences(),  # noqa: B008 - a value
) -> LanguageModel:
    """Returns a module as the class that its users call.

    Raises:
        ModelError: it is no kind of model that is called.
    """
    match module:
        case DecoderModel():
            return LanguageModel(module, tokenizer=tokenizer, frame=frame)
        case EncoderModel():
            return TextEncoder(module, tokenizer=tokenizer, frame=frame, sentences=sentences)
        case EncoderDecoderModel():
            return TextToText(module, tokenizer=tokenizer, frame=frame)
    raise ModelError(f"{type(module.spec).__name__} is a model that load does not know; see groundup.hub.folder")


def _dtype(name: torch.dtype | str | None) -> torch.dtype | None:
    if name is None or isinstance(name, torch.dtype):
        return name
    if name not in DTYPES:
        raise ConfigError(
            f"dtype {name!r} does not exist; {nearest(str(name), DTYPES)} choose from {', '.join(DTYPES)}"
        )
    return DTYPES[name]
