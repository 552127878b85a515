"""What a trained model makes of the run's prompts, or of how three held-out documents begin."""

from __future__ import annotations

from itertools import islice

from groundup.data.corpus import Corpus
from groundup.infer.language_model import LanguageModel
from groundup.infer.text_encoder import TextEncoder
from groundup.model.decoder import DecoderModel
from groundup.model.encoder import EncoderModel
from groundup.model.model import ModelModule
from groundup.recipes.settings import Run

PROMPT_TOKENS, SAMPLE_TOKENS = 16, 70  # of the texts that the trained model writes
HIDDEN_EVERY = 5  # token of a text that the trained model fills in


def samples(run: Run, model: ModelModule, corpus: Corpus) -> list[str]:
    """Returns the prompts, each with what the model makes of it."""
    match model:
        case DecoderModel():
            return _continued(run, model, corpus)
        case EncoderModel():
            return _filled(run, model, corpus)
    return []


def _beginnings(corpus: Corpus) -> list[list[int]]:
    first = islice(corpus.split("valid").documents(), 3)
    return [document.ids[:-1][:PROMPT_TOKENS].tolist() for document in first]


def _continued(run: Run, model: DecoderModel, corpus: Corpus) -> list[str]:
    words, start = corpus.tokenizer, corpus.manifest["end"]
    made_tokens = min(SAMPLE_TOKENS, model.spec.context // 2)
    read_tokens = model.spec.context - made_tokens - 1
    texts = [words.encode(text) for text in run.prompts] or _beginnings(corpus)
    prompts = [text[:read_tokens] for text in texts]
    if not made_tokens:
        return []
    made = LanguageModel(model, tokenizer=words).generations(
        [[start, *prompt] for prompt in prompts],
        max_new_tokens=made_tokens,
        temperature=0.5,
        top_p=0.9,
        repetition_penalty=1.15,  # a small model falls into repeating itself
        seed=run.seed,
    )
    return [f"{words.decode(prompt)}{one.text}".rstrip() for prompt, one in zip(prompts, made, strict=True)]


def _filled(run: Run, model: EncoderModel, corpus: Corpus) -> list[str]:
    words = corpus.tokenizer
    encoder = TextEncoder(model, tokenizer=words)
    if words.mask is None:
        return []
    texts = list(run.prompts)
    for ids in _beginnings(corpus):
        shown = [words.mask if place % HIDDEN_EVERY == HIDDEN_EVERY - 1 else id for place, id in enumerate(ids)]
        texts += [] if run.prompts or words.mask not in shown else [words.decode(shown)]
    return [f"{text}\n-> {encoder.fill(text, count=1)[0].text}" for text in texts]
