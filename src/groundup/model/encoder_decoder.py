"""An encoder reads a text at once, a decoder writes another and attends to what the encoder made of the first.

Source: Sutskever et al. 2014 (arXiv:1409.3215); Vaswani et al. 2017 (arXiv:1706.03762), section 3.1.
"""

from __future__ import annotations

from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.context import Batch, Context, Penalties
from groundup.errors import GenerationError, SpecError
from groundup.model.decoder import Decoder, DecoderModel, DecoderState
from groundup.model.encoder import Encoder
from groundup.model.heads import NoHead
from groundup.model.layer import LayerModule
from groundup.model.model import Model, ModelModule
from groundup.specs import Count


class EncoderDecoder(Model):
    """An encoder and a decoder whose cross parts attend to it.

    Attributes:
        encoder: reads the source; it has no head.
        decoder: writes the target.
        shared: whether both look their tokens up in one table.
        start: the token that stands before the target's first.
        end: the token that ends a target; None where none does.
        first: the token that every target begins with; None means any. For generation.
        last: the token of a target that is as long as it may be; None means any. For generation.
    """

    encoder: Encoder
    decoder: Decoder
    shared: bool = True
    start: Count = 0
    end: Count | None = None
    first: Count | None = None
    last: Count | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        one, two = self.encoder, self.decoder
        if one.width != two.width:
            raise SpecError(f"the encoder is {one.width} wide and the decoder {two.width}; make them as wide")
        if self.shared and one.vocab != two.vocab:
            raise SpecError(f"vocabularies of {one.vocab} and {two.vocab} cannot share a table; give shared=False")
        frame = {"start": self.start, "end": self.end, "first": self.first, "last": self.last}
        for name, id in frame.items():
            if id is not None and id >= two.vocab:
                raise SpecError(f"{name}={id} is no token of the decoder, whose vocabulary is {two.vocab}; change it")
        if one.head != NoHead():
            raise SpecError("the encoder of an EncoderDecoder has no head; give it head=NoHead()")
        if not any(part.mixer.reads_memory for layer in two.layers for part in layer.every_part.values()):
            raise SpecError("the decoder has no part that reads what the encoder made; give it a cross part")

    @property
    def stacks(self) -> dict[str, Encoder | Decoder]:
        """The encoder and the decoder."""
        return {"encoder": self.encoder, "decoder": self.decoder}

    @property
    def longest(self) -> int:
        """The longest target that it is meant for, in tokens."""
        return self.decoder.context

    def with_words(self, vocab: int, *, end: int) -> Self:
        """Returns the model with another number of token ids on both sides, and another token that ends a target."""
        encoder, decoder = (stack.with_words(vocab, end=end) for stack in (self.encoder, self.decoder))
        return self.replace(encoder=encoder, decoder=decoder, end=end, first=None, last=None)

    def with_distinct_layers(self) -> Self:
        """Returns the model with each distinct layer of its stacks once."""
        return self.replace(encoder=self.encoder.with_distinct_layers(), decoder=self.decoder.with_distinct_layers())

    def module(self) -> EncoderDecoderModel:
        """Returns the model with weights that are not drawn yet."""
        return EncoderDecoderModel(self)


class EncoderDecoderModel(ModelModule):
    """The module of `EncoderDecoder`."""

    def __init__(self, spec: EncoderDecoder) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = spec.encoder.module()
        self.decoder = spec.decoder.module()
        if spec.shared:
            self.decoder.embed.borrow(self.encoder.embed)

    def forward(
        self,
        ids: Int[Tensor, "B T"],
        state: DecoderState | None = None,
        *,
        source: Int[Tensor, "B M"] | None = None,
        source_lengths: Int[Tensor, "B"] | None = None,
        lengths: Int[Tensor, "B"] | None = None,
    ) -> Float[Tensor, "B T V"]:
        """Returns the logits of the token after each token of the target, in float32; arguments as for `hidden`."""
        hidden = self.hidden(ids, state, source=source, source_lengths=source_lengths, lengths=lengths)
        return self.decoder.logits(hidden)

    def hidden(
        self,
        ids: Int[Tensor, "B T"],
        state: DecoderState | None = None,
        *,
        source: Int[Tensor, "B M"] | None = None,
        source_lengths: Int[Tensor, "B"] | None = None,
        lengths: Int[Tensor, "B"] | None = None,
        penalties: Penalties | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Returns the decoder's final hidden states.

        Args:
            ids: tokens of the target, the start token first.
            state: None reads whole targets; a state from `new_state` is continued, in place, and knows its source.
            source: tokens of the source; None with a state.
            source_lengths: how many of them are real in each row; None means all.
            lengths: how many tokens of each target are real. Only with a state.
            penalties: where parts put what they add to the loss; None means that nobody asks. Only without a state.

        Raises:
            GenerationError: there is neither a source nor a state, or both.
        """
        if (source is None) == (state is None):
            raise GenerationError("an encoder-decoder reads a source, or goes on from the state that it has read it to")
        if source is None:
            return self.decoder.hidden(ids, state, lengths=lengths)
        memory = self.encoder.hidden(source, lengths=source_lengths, penalties=penalties)
        return self.decoder.hidden(ids, memory=memory, memory_lengths=source_lengths, penalties=penalties)

    @property
    def predictor(self) -> DecoderModel:
        """The decoder, which has the head."""
        return self.decoder

    def read(self, batch: Batch, *, penalties: Penalties | None = None) -> Float[Tensor, "B T D"]:
        """Returns the hidden states of whole targets from which a batch's targets are predicted."""
        return self.hidden(batch.ids, source=batch.source, source_lengths=batch.source_lengths, penalties=penalties)

    def new_state(
        self,
        source: Int[Tensor, "B M"],
        max_len: int,
        *,
        lengths: Int[Tensor, "B"] | None = None,
        dtype: torch.dtype | None = None,
    ) -> DecoderState:
        """Returns the decoder's state that has read these sources and has written nothing.

        Args:
            source: tokens of the sources.
            max_len: the most tokens that any target will have, the start token and padding included.
            lengths: how many tokens of each source are real; None means all.
            dtype: of keys and values; None means that of the weights.
        """
        ctx = Context.whole(source, memory=self.encoder.hidden(source, lengths=lengths), memory_lengths=lengths)
        state = self.decoder.new_state(len(source), max_len, device=source.device, dtype=dtype)
        for layer, states in zip(self.decoder.layers, state.layers, strict=True):
            assert isinstance(layer, LayerModule)
            layer.remember(states, ctx, dtype=dtype)
        return state
