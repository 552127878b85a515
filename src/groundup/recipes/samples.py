"""What a trained model makes of the run's prompts, or of how three held-out documents begin."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from groundup.data.corpus import Corpus
from groundup.errors import GenerationError
from groundup.infer.infill import SENTINEL, sentinels
from groundup.infer.language_model import LanguageModel
from groundup.infer.text_encoder import TextEncoder
from groundup.infer.text_to_text import TextToText
from groundup.model.decoder import DecoderModel
from groundup.model.encoder import EncoderModel
from groundup.model.encoder_decoder import EncoderDecoderModel
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
        case EncoderDecoderModel():
            return _written(run, model, corpus)
    return []


def _beginnings(corpus: Corpus, *, most: int = PROMPT_TOKENS) -> list[list[int]]:
    first = islice(corpus.split("valid").documents(), 3)
    return [document.ids[:-1][: min(most, PROMPT_TOKENS)].tolist() for document in first]


def _with_gaps(ids: list[int], marks: list[int]) -> list[int]:
    """A text in which every fifth token is hidden, as long as there are marks to stand for them."""
    left = iter(marks)
    hidden = range(HIDDEN_EVERY - 1, len(ids), HIDDEN_EVERY)
    return [next(left, id) if place in hidden else id for place, id in enumerate(ids)]


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
    if words.mask is None:
        return []
    encoder, most = TextEncoder(model, tokenizer=words), model.spec.context - 1
    rows = [_with_gaps(ids, [words.mask] * len(ids)) for ids in _beginnings(corpus, most=most)]
    texts = run.prompts or [words.decode(ids) for ids in rows if words.mask in ids]
    return [_answered(text, lambda text: encoder.fill(text, count=1)[0].text) for text in texts]


def _written(run: Run, model: EncoderDecoderModel, corpus: Corpus) -> list[str]:
    words = corpus.tokenizer
    writer, marks = TextToText(model, tokenizer=words), list(sentinels(words))
    rows = _beginnings(corpus, most=model.spec.encoder.context - 1)
    texts = run.prompts or [words.decode(_with_gaps(ids, marks)) for ids in rows]
    most = min(SAMPLE_TOKENS, model.spec.decoder.context - 1)

    def answer(text: str) -> str:
        write = writer.infill if SENTINEL in text else writer.generate
        return str(write(text, max_new_tokens=most, temperature=0.0))

    return [_answered(text, answer) for text in texts] if most else []


def _answered(text: str, answer: Callable[[str], str]) -> str:
    """A text with what was made of it, or why nothing can be: all of the training is done by now."""
    try:
        return f"{text}\n-> {answer(text)}"
    except GenerationError as fault:
        return f"{text}\n-> (nothing: {fault})"
