"""An encoder as its users meet it: texts in, vectors of tokens or of whole sentences out, and masks filled in.

model = load("all-MiniLM-L6-v2")
near = model.embed(["a cat sleeps", "a dog barks"])
best, *others = load("bert-base").fill("The [MASK] sat on the mat.")
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.errors import GenerationError, TextError
from groundup.hub.frame import NO_FRAME, Frame
from groundup.hub.sentences import Sentences, write_sentences
from groundup.infer.diffuse import Order, diffuse
from groundup.infer.fill import Filling, fillings
from groundup.infer.generation import Generation
from groundup.infer.ids import several, side_by_side
from groundup.infer.language_model import LanguageModel
from groundup.model.encoder import EncoderModel
from groundup.text.tokenizer import Tokenizer

TOKENS = 16_384  # that are read side by side, padding included, which bounds the memory


class TextEncoder(LanguageModel):
    """An encoder with its tokenizer; it reads, and writes no more than what is masked.

    Attributes:
        module: the torch module, for whoever wants gradients or its parts.
        tokenizer: None for a model that works on ids alone.
        sentences: how the vector of a text is made of those of its tokens.
    """

    def __init__(
        self,
        module: EncoderModel,
        *,
        tokenizer: Tokenizer | None = None,
        frame: Frame = NO_FRAME,
        sentences: Sentences = Sentences(),  # noqa: B008 - a value
    ) -> None:
        self.module: Any = module
        self.tokenizer = tokenizer
        self.frame = frame
        self.sentences = sentences

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> Float[Tensor, "N D"]:
        """Returns a vector for each text, in the order of the texts, in float32.

        Texts longer than the model's context, or than its maker chose, are cut. Texts of like lengths are read side
        by side.

        Raises:
            TextError: the model has no tokenizer, or a single text was given instead of several.
            GenerationError: a text has no token, and the tokenizer adds none.
        """
        if isinstance(texts, str):
            raise TextError("expected several texts, not one str; give [text]")
        if self.tokenizer is None:
            raise TextError("the model has no tokenizer; call module.hidden with ids")
        rows = [self._cut(self.tokenizer, self._ids(self.tokenizer, text)) for text in texts]
        vectors = torch.empty(len(rows), self.spec.width)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]), reverse=True)
        while order:
            count = max(1, TOKENS // len(rows[order[0]]))
            chosen, order = order[:count], order[count:]
            vectors[chosen] = self._embed([rows[i] for i in chosen]).cpu()
        return vectors

    def _write_beside(self, folder: Path) -> None:
        write_sentences(self.sentences, folder, width=self.spec.width, context=self.spec.context)

    @staticmethod
    def _ids(words: Tokenizer, text: str, *, markup: bool = False) -> list[int]:
        """The ids of a text in its frame; where the tokenizer has none, after the end token, as our own runs read."""
        ids = words.encode(text, markup=markup, framed=True)
        if words.end is not None and not words.encode("", framed=True):
            ids = [words.end, *ids]
        if not ids:
            raise GenerationError(f"the text {text!r} has no token, and the tokenizer adds none; give some text")
        return ids

    def _cut(self, words: Tokenizer, ids: list[int]) -> list[int]:
        most = min(self.spec.context, self.sentences.context or self.spec.context)
        if len(ids) <= most:
            return ids
        last = ids[-1:] if words.is_special(ids[-1]) else []
        return ids[: most - len(last)] + last

    def _embed(self, rows: list[list[int]]) -> Float[Tensor, "B D"]:
        ids, lengths = side_by_side(rows, device=self._device)
        hidden = self.module.hidden(ids, lengths=lengths).float()
        return self.sentences.pooled(hidden, lengths)

    def fill(self, text: str, *, count: int = 5) -> list[Filling]:
        """Returns the likeliest ways to fill in the masks of a text, best first.

        Args:
            text: with the name of the tokenizer's mask token in the places to fill, such as ``[MASK]``.
            count: how many ways to return at most.

        Raises:
            TextError: the model has no tokenizer.
            GenerationError: nothing is masked, the tokenizer has no mask, or the model no head.
        """
        words = self._words()
        if words.mask is None:
            raise GenerationError("the tokenizer has no mask token, so nothing can be filled in; use embed or hidden")
        if not isinstance(count, int) or count < 1:
            raise GenerationError(f"count={count!r} asks for no filling; choose a whole number from 1 on")
        ids = self._ids(words, text, markup=True)
        made = fillings(self.module, ids, mask=words.mask, count=count, vocab=words.vocab)
        return [self._filling(words, ids, way, probability) for way, probability in made]

    def diffuse(
        self,
        prompt: str = "",
        *,
        new_tokens: int = 64,
        steps: int | None = None,
        order: Order = "confidence",
        temperature: float = 1.0,
        seed: int = 0,
    ) -> str:
        """Returns a text that begins with a prompt, by a model that learnt masked diffusion.

        Masks that stand in the prompt are filled in too. What comes after an end token is left out.

        Args:
            prompt: what is known of the text.
            new_tokens: how many tokens to write after it.
            steps: in how many steps; None means one for each hidden token.
            order: which tokens come first: those of which the model is sure, or ``random`` ones.
            temperature: of what is drawn; 0 takes the likeliest token.
            seed: of what is drawn.

        Raises:
            TextError: the model has no tokenizer.
            GenerationError: a setting that cannot be used, the tokenizer has no mask, or the model no head.
        """
        words = self._words()
        if words.mask is None:
            raise GenerationError("the tokenizer has no mask token, so no text can be diffused; load a model that has")
        begin = [] if words.end is None else [words.end]
        ids = begin + words.encode(prompt, markup=True) + [words.mask] * new_tokens
        count = max(ids.count(words.mask), 1) if steps is None else steps
        drawn = {"order": order, "temperature": temperature, "seed": seed}
        made = diffuse(self.module, [ids], mask=words.mask, steps=count, vocab=words.vocab, **drawn)[0].tolist()
        made = made[len(begin) :]
        return words.decode(made[: made.index(words.end)] if words.end in made else made, hide_special=True)

    @staticmethod
    def _filling(words: Tokenizer, ids: list[int], way: list[int], probability: float) -> Filling:
        fresh = iter(way)
        whole = [next(fresh) if id == words.mask else id for id in ids]
        tokens = tuple(words.decode([id]) for id in way)
        return Filling(text=words.decode(whole, hide_special=True), tokens=tokens, probability=probability)

    def generations(  # pyrefly: ignore[bad-override]: an encoder draws nothing
        self, prompts: Sequence[str], **_: Any
    ) -> list[Generation]:
        """Returns each text with its masks filled in the likeliest way.

        Raises:
            GenerationError: nothing is masked, or the model has no head.
        """
        texts = several(prompts, expected="a list of texts")
        return [Generation(prompt_ids=[], text=self.fill(text, count=1)[0].text, finish="end") for text in texts]

    def stream(  # pyrefly: ignore[bad-override]
        self, prompt: str, **_: Any
    ) -> Iterator[str]:
        """Yields the text with its masks filled in the likeliest ways, one a line, best first."""
        for number, way in enumerate(self.fill(prompt)):
            yield f"{chr(10) * bool(number)}{way.text}"
