"""An encoder as its users meet it: texts in, vectors of tokens or of whole sentences out.

model = load("all-MiniLM-L6-v2")
near = model.embed(["a cat sleeps", "a dog barks"])
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.errors import GenerationError, TextError
from groundup.hub.sentences import Sentences, write_sentences
from groundup.infer.ids import side_by_side
from groundup.infer.language_model import LanguageModel
from groundup.model.encoder import EncoderModel
from groundup.text.tokenizer import Tokenizer

TOKENS = 16_384  # that are read side by side, padding included, which bounds the memory


class TextEncoder(LanguageModel):
    """An encoder with its tokenizer; it reads and does not write.

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
        sentences: Sentences = Sentences(),  # noqa: B008 - a value
    ) -> None:
        self.module: Any = module
        self.tokenizer = tokenizer
        self.sentences = sentences

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> Float[Tensor, "N D"]:
        """Returns a vector for each text, in the order of the texts, in float32.

        Texts longer than the model's context, or than its maker chose, are cut. Texts of like lengths are read side
        by side.

        Raises:
            TextError: the model has no tokenizer, or a single text was given instead of several.
        """
        if isinstance(texts, str):
            raise TextError("expected several texts, not one str; give [text]")
        if self.tokenizer is None:
            raise TextError("the model has no tokenizer; call module.hidden with ids")
        rows = [self._ids(self.tokenizer, text) for text in texts]
        vectors = torch.empty(len(rows), self.spec.width)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]), reverse=True)
        while order:
            count = max(1, TOKENS // len(rows[order[0]]))
            chosen, order = order[:count], order[count:]
            vectors[chosen] = self._embed([rows[i] for i in chosen]).cpu()
        return vectors

    def _write_beside(self, folder: Path) -> None:
        write_sentences(self.sentences, folder, width=self.spec.width, context=self.spec.context)

    def _ids(self, tokenizer: Tokenizer, text: str) -> list[int]:
        ids = tokenizer.encode(text, framed=True)
        most = min(self.spec.context, self.sentences.context or self.spec.context)
        if len(ids) <= most:
            return ids
        last = ids[-1:] if tokenizer.is_special(ids[-1]) else []
        return ids[: most - len(last)] + last

    def _embed(self, rows: list[list[int]]) -> Float[Tensor, "B D"]:
        ids, lengths = side_by_side(rows, device=self._device)
        hidden = self.module.hidden(ids, lengths=lengths).float()
        return self.sentences.pooled(hidden, lengths)

    def generations(self, *_: Any, **__: Any) -> NoReturn:
        """Refuses: an encoder does not write.

        Raises:
            GenerationError: always.
        """
        raise GenerationError("an encoder reads and does not write; use embed or hidden, or load a language model")

    generate = stream = chat = generations  # pyrefly: ignore[bad-override]
