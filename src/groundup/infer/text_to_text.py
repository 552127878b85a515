"""An encoder-decoder as its users meet it: a text in, another out.

model = load("flan-t5-small")
print(model.generate("translate English to German: How old are you?"))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.hub.frame import NO_FRAME, Frame
from groundup.infer.generation import Generation
from groundup.infer.ids import as_ids, as_rows, check_source, several, side_by_side
from groundup.infer.infill import check_sentinels, filled, sentinels
from groundup.infer.language_model import MAX_NEW_TOKENS, LanguageModel
from groundup.model.encoder_decoder import EncoderDecoderModel
from groundup.text.tokenizer import Tokenizer

Rows = Tensor | Sequence[Sequence[int]]


class TextToText(LanguageModel):
    """An encoder-decoder with its tokenizer: what `generate` and its kin take as a prompt is the source.

    Attributes:
        module: the torch module, for whoever wants gradients or its parts.
        tokenizer: None for a model that works on ids alone.
    """

    def __init__(
        self,
        module: EncoderDecoderModel,
        *,
        tokenizer: Tokenizer | None = None,
        frame: Frame = NO_FRAME,
    ) -> None:
        self.module: Any = module
        self.tokenizer = tokenizer
        self.frame = frame

    @torch.no_grad()
    def __call__(  # pyrefly: ignore[bad-override]: there is a source too
        self, ids: Rows, *, source: Rows
    ) -> Float[Tensor, "B T V"]:
        """Returns the logits of the token after each token of the targets, in float32.

        Args:
            ids: tokens of the targets (B, T), the start token first; rows of equal length.
            source: tokens of the sources, rows of any lengths.

        Raises:
            GenerationError: no such ids in the vocabulary, targets of different lengths, or a row too long.
        """
        return self.module(**self._read(ids, source))

    @torch.no_grad()
    def hidden(  # pyrefly: ignore[bad-override]: there is a source too
        self, ids: Rows, *, source: Rows
    ) -> Float[Tensor, "B T D"]:
        """Returns the decoder's final hidden states; arguments and errors are those of a call."""
        return self.module.hidden(**self._read(ids, source))

    def infill(self, text: str, *, max_new_tokens: int | None = MAX_NEW_TOKENS, **sampling: Any) -> str:
        """Returns a text with its gaps filled, by a model that learnt span corruption.

        Args:
            text: with ``<extra_id_0>``, ``<extra_id_1>``, ... in its gaps.
            max_new_tokens: the most tokens to write for all gaps.
            **sampling: settings of `Sampling`; by default, the likeliest tokens.

        Raises:
            TextError: the model has no tokenizer.
            GenerationError: there is no gap, or a setting that cannot be used.
        """
        words = self._words()
        marks, ids = sentinels(words), words.encode(text, markup=True)
        check_sentinels(ids, marks)
        source = self._ended(words.encode(text, markup=True, framed=True), words)
        written = self.generate_ids(source, max_new_tokens=max_new_tokens, **{"temperature": 0.0, **sampling})
        return words.decode(filled(ids, written, marks), hide_special=True)

    def prompt_ids(self, prompt: str | Sequence[int]) -> list[int]:
        """Returns the ids of a source: ids as they are, a text with the tokenizer's frame and the token that ends it.

        Raises:
            TextError: a text, and the model has no tokenizer.
            GenerationError: ids that are no whole numbers.
        """
        ids = super().prompt_ids(prompt)
        return self._ended(ids, self._words()) if isinstance(prompt, str) else ids

    @staticmethod
    def _ended(ids: list[int], words: Tokenizer) -> list[int]:
        return ids if words.end is None or ids[-1:] == [words.end] else [*ids, words.end]

    def _read(self, ids: Rows, source: Rows) -> dict[str, Tensor]:
        given = source.tolist() if isinstance(source, Tensor) else several(source, expected="sources in rows")
        rows = [as_ids(row) for row in given]
        for row in rows:
            check_source(row, self.spec.encoder)
        padded, lengths = side_by_side(rows, device=self._device)
        targets = as_rows(ids, self.spec.decoder, device=self._device)
        return {"ids": targets, "source": padded, "source_lengths": lengths}

    def _row(self, prompt: str | Sequence[int], **settings: Any) -> Generation:
        return Generation(source_ids=self.prompt_ids(prompt), prompt_ids=[self.spec.start], **settings)
