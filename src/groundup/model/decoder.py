"""A language model that reads from left to right: embedding, positions, layers, norm, head.

h_0 = position(embed(ids));  h_i = layer_i(h_{i-1});  logits = head(norm(h_n))
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.context import Context
from groundup.errors import GenerationError
from groundup.model.heads import Head, Untied
from groundup.model.layer import LayerModule, LayerSpec, LayerState
from groundup.parts.init import Init, ScaledNormal
from groundup.parts.linear import Embedding, dropout
from groundup.parts.norm import Norm, RMSNorm
from groundup.parts.position import NoPosition, Position
from groundup.specs import ShareBelowOne, Size, Spec
from groundup.state import State


class Decoder(Spec):
    """A language model that reads from left to right.

    Attributes:
        width: the width of the residual stream.
        vocab: how many token ids there are.
        context: the longest sequence that the model is meant for, in tokens.
        layers: the layers, first to last.
        position: what is added to the embeddings; rotary positions belong to the attention instead.
        norm: the norm before the head.
        head: what makes logits.
        init: how weights start.
        dropout: the chance of each value of the embeddings to be dropped in training.
    """

    width: Size
    vocab: Size
    context: Size
    layers: tuple[LayerSpec, ...]
    position: Position = NoPosition()
    norm: Norm = RMSNorm()
    head: Head = Untied()
    init: Init = ScaledNormal()
    dropout: ShareBelowOne = 0.0

    def build(self, *, seed: int = 0) -> DecoderModel:
        """Returns the model with its first weights drawn; on the meta device, only their shapes."""
        model = DecoderModel(self)
        self.init.fill(model, residuals=sum(len(layer.parts) for layer in self.layers), seed=seed)
        return model


@dataclass
class DecoderState(State):
    """What a decoder remembers of its rows.

    Attributes:
        seen: tokens that each row has read, (B,).
        layers: the states of the layers' parts.
        reach: an upper bound of ``seen``, known without asking the device.
        room: the most tokens a row may read.
    """

    seen: Int[Tensor, "B"]
    layers: tuple[LayerState, ...]
    reach: int
    room: int

    def rewind(self, length: Tensor) -> None:
        """Forgets, in place, all but the first ``length`` (B,) tokens of each row."""
        super().rewind(length)
        self.seen.copy_(torch.minimum(self.seen, length))
        self.tighten()

    def tighten(self) -> None:
        """Makes ``reach`` exact, which asks the device; it is too large after padding, lost rows or compiled steps."""
        self.reach = max(self.seen.tolist(), default=0)


class DecoderModel(nn.Module):
    """The module of `Decoder`."""

    def __init__(self, spec: Decoder) -> None:
        super().__init__()
        self.spec = spec
        self.embed = Embedding(spec.vocab, spec.width)
        self.position = spec.position.build(spec.width)
        self.dropout = dropout(spec.dropout)
        self.layers = nn.ModuleList(layer.build(spec.width) for layer in spec.layers)
        self.norm = spec.norm.build(spec.width)
        self.head = spec.head.build(spec.width, self.embed)

    def forward(
        self,
        ids: Int[Tensor, "B T"],
        state: DecoderState | None = None,
        *,
        segments: Int[Tensor, "B T"] | None = None,
        positions: Int[Tensor, "B T"] | None = None,
        lengths: Int[Tensor, "B"] | None = None,
    ) -> Float[Tensor, "B T V"]:
        """Returns the logits of the token after each token, in float32; the arguments are those of `hidden`."""
        return self.logits(self.hidden(ids, state, segments=segments, positions=positions, lengths=lengths))

    def logits(self, hidden: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows V"]:
        """Returns the head's logits of hidden states, in float32 (in float64 for a model in float64)."""
        logits = self.head(hidden)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def hidden(
        self,
        ids: Int[Tensor, "B T"],
        state: DecoderState | None = None,
        *,
        segments: Int[Tensor, "B T"] | None = None,
        positions: Int[Tensor, "B T"] | None = None,
        lengths: Int[Tensor, "B"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Returns the hidden states that the head reads.

        Args:
            ids: token ids.
            state: None reads whole sequences; a state from `new_state` is continued, in place.
            segments: which document of its row each token belongs to; None means one a row. Only without a state.
            positions: the place of each token in its document; None means 0, 1, 2, ... Only without a state.
            lengths: how many tokens of each row are real, the rest being padding on the right. Only with a state:
                without one, padding on the right changes nothing before it.

        Raises:
            GenerationError: the state has no room for these tokens, or segments or positions came with a state.
        """
        if state is None:
            ctx = Context.whole(ids, segments=segments, positions=positions)
        elif segments is None and positions is None:
            ctx = self._continue(ids, state, lengths)
        else:
            raise GenerationError("segments and positions are for whole sequences; a state has its own places")
        x = self.dropout(self.position(self.embed(ids), ctx))
        for i, layer in enumerate(self.layers):
            x = layer(x, ctx, None if state is None else state.layers[i])
        if state is not None:
            state.seen.add_(ids.shape[1] if lengths is None else lengths)
        return self.norm(x)

    def _continue(self, ids: Tensor, state: DecoderState, lengths: Tensor | None) -> Context:
        if torch.compiler.is_compiling():  # one graph for all steps: no number that grows, and a mask over every slot
            state.reach = state.room
            return Context.after(state.seen, ids.shape[1], reach=state.room, lengths=lengths)
        if state.reach + ids.shape[1] > state.room:
            state.tighten()
        reach = state.reach + ids.shape[1]
        if reach > state.room:
            raise GenerationError(
                f"the state has room for {state.room} tokens and {reach} were to be read; make it with a larger max_len"
            )
        state.reach = reach
        return Context.after(state.seen, ids.shape[1], reach=reach, lengths=lengths)

    def new_state(
        self, rows: int, max_len: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> DecoderState:
        """Returns the state of ``rows`` rows that have read nothing, with room for ``max_len`` tokens each.

        Args:
            rows: sequences to read side by side.
            max_len: the most tokens that any of them will read, padding included.
            device: where the state lives; None means where the weights are.
            dtype: of keys and values; None means that of the weights.
        """
        weight = self.embed.weight
        device, dtype = device or weight.device, dtype or weight.dtype
        layers = (layer for layer in self.layers if isinstance(layer, LayerModule))
        return DecoderState(
            seen=torch.zeros(rows, dtype=torch.int64, device=device),
            layers=tuple(layer.new_state(rows, max_len, device=device, dtype=dtype) for layer in layers),
            reach=0,
            room=max_len,
        )
