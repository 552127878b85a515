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

from groundup.infer.generation import Generation
from groundup.infer.ids import as_ids, as_rows, check_source, several, side_by_side
from groundup.infer.language_model import LanguageModel
from groundup.model.encoder_decoder import EncoderDecoderModel
from groundup.text.tokenizer import Tokenizer

Rows = Tensor | Sequence[Sequence[int]]


class TextToText(LanguageModel):
    """An encoder-decoder with its tokenizer: what `generate` and its kin take as a prompt is the source.

    Attributes:
        module: the torch module, for whoever wants gradients or its parts.
        tokenizer: None for a model that works on ids alone.
    """

    def __init__(self, module: EncoderDecoderModel, *, tokenizer: Tokenizer | None = None) -> None:
        self.module: Any = module
        self.tokenizer = tokenizer

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
